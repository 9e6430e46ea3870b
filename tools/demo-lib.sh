# What the demos share. It is sourced in the project's directory.

say() { printf '\n%s\n' "$*"; }
run() { printf '$'; printf ' %q' "$@"; echo; "$@"; }

# lacks TOOL PACKAGE ends the demo.
lacks() { echo "demo: $1 is missing (Debian: apt install $2)" >&2; exit 1; }

# begin DIR makes the demo's directory anew and goes there.
begin() {
	if [ -e "$1" ] && [ ! -e "$1/.signdrop-demo" ]; then
		echo "demo: $1 exists and is not a demo's directory: give another as the argument" >&2
		exit 1
	fi
	rm -rf "$1"
	mkdir -p "$1"
	touch "$1/.signdrop-demo"
	cd "$1"
}

# failed STATUS REJECTED LOG tells what went wrong.
failed() {
	local reason
	{
		echo
		echo "demo: FAILED (exit $1)"
		for reason in "$2"/*.reason.json; do
			[ -e "$reason" ] && echo "refused: $(cat "$reason")"
		done
		echo "the log, $PWD/$3:"
		tail -n 40 "$3"
	} >&2
}

# field NAME FILE takes the first string of this name out of a file of JSON, which
# writes a line break in a string as \n; %b makes it one again.
field() {
	local value
	value=$(grep -o "\"$1\": *\"[^\"]*\"" "$2" | head -n 1 | cut -d '"' -f 4)
	[ -n "$value" ] || { echo "demo: $2 has no $1" >&2; return 1; }
	printf '%b' "$value"
}

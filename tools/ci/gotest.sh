#!/usr/bin/env bash
# Runs go test and fails if a test was skipped, so that a missing tool cannot
# pass for a green run. The output is go test's own, without the -v noise; the
# names of what failed come last, where a log that was cut still has them.
set -euo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
"${GO:-go}" test -v -timeout 40m "$@" >"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
	# Everything but the tests that passed.
	grep -avE '^\s*(=== (RUN|PAUSE|CONT|NAME)|--- PASS)' "$log" || true
	echo "what failed:"
	# With -v a test's own words stand above its --- FAIL.
	grep -aE -B6 -A12 '^\s*--- FAIL|^panic:|^FAIL\s|^fatal error:' "$log" | grep -avE '^\s*(=== |--- PASS)' | tail -n 80 || true
	exit "$status"
fi
grep -aE '^(ok|\?|FAIL)\b|no test files' "$log" || true
if grep -aqE '^\s*--- SKIP' "$log"; then
	echo "skipped tests are failures:"
	grep -aE -A3 '^\s*--- SKIP' "$log"
	exit 1
fi

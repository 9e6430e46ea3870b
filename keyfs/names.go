package keyfs

// The three kinds of names become names of files. None of them can hold a
// slash, a dot or a NUL, so that none can leave its directory, and temporary
// names, which begin with a dot, never meet one.

// ValidCompany reports whether name may name a company: 1 to 32 of a-z, 0-9 and
// the hyphen, which does not come first.
func ValidCompany(name string) bool {
	return within(name, 1, 32, func(c byte) bool { return lower(c) || digit(c) || c == '-' }) && name[0] != '-'
}

// ValidID reports whether id may name a wallet: 3 to 64 of A-Z, a-z, 0-9, the
// underscore and the hyphen.
func ValidID(id string) bool {
	return within(id, 3, 64, func(c byte) bool { return alphanumeric(c) || c == '_' || c == '-' })
}

// ValidAddress reports whether address may be a ledger's address: 1 to 128 of
// A-Z, a-z and 0-9.
func ValidAddress(address string) bool { return within(address, 1, 128, alphanumeric) }

func within(s string, least, most int, allowed func(byte) bool) bool {
	if len(s) < least || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) bool        { return 'a' <= c && c <= 'z' }
func digit(c byte) bool        { return '0' <= c && c <= '9' }
func alphanumeric(c byte) bool { return lower(c) || digit(c) || 'A' <= c && c <= 'Z' }

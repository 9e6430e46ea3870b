package spool

// For the tests of names.
var (
	StatusName = statusName
	SigOf      = sigOf
	SigName    = sigName
)

func IsRequest(name string) bool {
	_, ok := typeOf(DefaultTypes, name)
	return ok
}

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"signdrop/appliance/reason"
)

// The exit codes. They are a promise to scripts; exitCodesHelp describes them.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitWaiting = 4
)

const exitCodesHelp = `Every command ends with one of these codes:

  0  done: all answered, all in order
  1  something failed; what it was stands on standard error
  2  wrong usage; nothing was done
  3  refused: an answer says refused, or a signature does not verify
     (preview: it would be refused)
  4  still waiting: not everything was answered within the time

Where several apply, the first of 1, 3, 4 is used. A later version may add
codes: treat a code that you do not know as a failure.

  signdrop submit --wait … ; case $? in
    0) echo answered ;;
    3) echo refused: see rejected/ ;;
    4) echo run the same command again, it goes on waiting ;;
    *) echo failed ;;
  esac`

// failure is an error with what main must know beside its text.
type failure struct {
	code int
	err  error
	hint string // what to do next, "" where the error says it
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usagef is an error of exit code 2.
func usagef(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// codedf is an error with an exit code.
func codedf(code int, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

// hinted adds what to do next.
func hinted(err error, hint string) error {
	return &failure{code: exitFailed, err: err, hint: hint}
}

// report prints an error and returns the exit code for it. An error that came
// before the command had started is one of usage, by whatever part of cobra.
func report(err error, started bool) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	text := err.Error()
	var f *failure
	if errors.As(err, &f) {
		code, hint = f.code, f.hint
	} else if r, ok := reason.As(err); ok {
		text, hint = refusalText(r), r.Hint
	}
	if !started {
		code = exitUsage
	}
	if code == exitUsage && hint == "" {
		hint = "add --help to the command to see how it is used"
	}
	complain(os.Stderr, text, hint)
	return code
}

// refusalText is a refusal without its hint, which is printed apart.
func refusalText(r *reason.Refusal) string {
	c := *r
	c.Hint = ""
	return strings.TrimSpace(c.Error())
}

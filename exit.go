package main

import "fmt"

// Exit codes, the same for every command.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2 // a bad flag or environment value
	exitNotFound    = 3
	exitJobFailed   = 4 // the job waited for has failed or was canceled
	exitUnreachable = 5 // sidejob or Trigger.dev; the PostgreSQL to prove it on
)

// exitError is an error that says with what the process exits.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// exitf is an exitError with a text of its own.
func exitf(code int, format string, args ...any) error {
	return exitError{code: code, err: fmt.Errorf(format, args...)}
}

// usage marks an error of the command line or the environment.
func usage(err error) error { return exitError{code: exitUsage, err: err} }

package main

import "time"

// dialect is what SQLite and PostgreSQL do not say alike.
type dialect struct {
	shared     bool                // several sidejobs may write at once
	forUpdate  string              // ends a SELECT that locks its rows
	skipLocked string              // ends one that takes only rows nobody else has locked
	lockTag    string              // locks the tag $1 until the commit; "" where writes are serial
	hasLabel   string              // condition on labels, %s is the placeholder
	time       func(time.Time) any // a time as a bound value; zero is NULL
	busy       func(error) bool    // cannot be written now, may be later
}

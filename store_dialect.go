package main

import (
	"context"
	"time"
)

// dialect is what SQLite and PostgreSQL do not say alike.
type dialect struct {
	shared     bool                // several sidejobs may write at once
	forUpdate  string              // ends a SELECT that locks its rows
	skipLocked string              // ends one that takes only rows nobody else has locked
	lockTag    string              // locks the tag $1 until the commit; "" where writes are serial
	hasLabel   string              // condition on labels, %s is the placeholder
	time       func(time.Time) any // a time as a bound value; zero is NULL
	busy       func(error) bool    // cannot be written now, may be later
	patience   time.Duration       // how long a call may take in all; 0: as long as it takes
	host       map[string]hostColumn
}

// bounded ends a call that takes too long: a database behind a broken network answers
// nothing, not even that it is late.
func (d dialect) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if d.patience == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d.patience)
}

// hostColumn says what a column of an adopted table does not take that sidejob's own
// would.
type hostColumn struct {
	int4    bool // 32 bits: the wide value stands beside it, see wideNames
	notNull bool
}

// wideNames are the columns beside the host's delays of 32 bits, which hold 24 days.
// They stand after all others.
func (d dialect) wideNames() (names []string) {
	for _, delay := range []string{"auto_reschedule_on_failure_delay", "remove_delay"} {
		if d.host[delay].int4 {
			names = append(names, delay+"_ms")
		}
	}
	return names
}

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// TestPostgreSQLMakesEachOccurrenceOfAnInternalJobOnce has two sidejobs do to one
// recurring job, all at once, whatever may be done to one. No index keeps its nominal
// times apart: the row that ends makes the row that follows, in one transaction and under
// its own lock, and a tag's lock keeps a second chain from beginning.
func TestPostgreSQLMakesEachOccurrenceOfAnInternalJobOnce(t *testing.T) {
	host, config := throwAwayCluster().freshSchemas(t)
	config.url = withParameter(config.url, "deadlock_timeout", "5") // whoever ends a row locks it and then the tag, whoever schedules the tag first
	c := &chain{storeTest: storeTest{T: t, host: host}}
	for range 2 {
		store, err := openPostgres(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { mustClose(t, store) })
		c.stores = append(c.stores, store)
	}
	c.Store = c.stores[0]
	c.first.Store(c.schedule(c.Store, rand.New(rand.NewPCG(0, 0)), c.at(0)))
	c.together(8, c.rattle)

	var made, twice, open int
	err := host.QueryRow(`
		SELECT count(*), count(*) - count(DISTINCT (COALESCE(schedule_row, id), due)), count(*) FILTER (WHERE finished IS NULL AND NOT last_occurrence)
		FROM worker_jobs WHERE cron_schedule IS NOT NULL`).Scan(&made, &twice, &open)
	if err != nil {
		t.Fatal(err)
	}
	if made < 50 || twice != 0 || open > 1 {
		t.Errorf("%d occurrences, %d of them made twice, and %d open; want 50 at least, none, and at most one", made, twice, open)
	}
	t.Logf("%d occurrences; %d calls were refused, %d lost against others too often", made, c.refused.Load(), c.busy.Load())
}

// chain is a recurring job and the sidejobs that work on it.
type chain struct {
	storeTest
	stores        []Store
	clock         atomic.Int64 // milliseconds
	first         atomic.Int64 // the row with which the chain began
	refused, busy atomic.Int64
}

// schedule begins the chain anew, or keeps it.
func (c *chain) schedule(store Store, dice *rand.Rand, at time.Time) (id int64) {
	j, _, err := job.New(job.Spec{Tag: "chain", Type: "work", CronSchedule: "* * * * * *", Misfire: job.FireAll, AutoReschedule: dice.IntN(2) == 0}, at, uuid.NewString())
	if err != nil {
		c.Error(err)
		return 0
	}
	policy := job.Keep
	if dice.IntN(4) == 0 {
		policy = job.Replace
	}
	placed, err := store.Schedule(c.Context(), []Order{{Job: j, OnConflict: policy, Source: "test"}}, Keyed{})
	if c.note("schedule", err) || placed[0].Err != nil {
		return 0
	}
	return placed[0].Job.ID
}

// rattle does one thing after another to the row that is open.
func (c *chain) rattle(n int) {
	dice, store := rand.New(rand.NewPCG(uint64(n), 1)), c.stores[n%2]
	for range 120 {
		at := c.at(c.clock.Add(dice.Int64N(200)))
		if dice.IntN(20) == 0 {
			if id := c.schedule(store, dice, at); id != 0 {
				c.first.Store(id)
			}
			continue
		}
		j, err := store.RecurringRow(c.Context(), c.first.Load())
		if err != nil {
			c.Errorf("read the open row: %v", err)
			return
		}
		ev := job.Event{At: at, Source: "test", Key: uuid.NewString(), Lease: job.Lease{Token: j.LeaseToken}}
		switch kinds := []job.Kind{job.Claim, job.Claim, job.Claim, job.Complete, job.Complete, job.Fail, job.Cancel, job.LeaseLost, job.Missed, job.Pause, job.Resume, job.Resume}; {
		case j.LeaseToken != "":
			ev.Kind = kinds[3+dice.IntN(6)]
		default:
			ev.Kind = kinds[[]int{0, 1, 2, 8, 9, 10, 11}[dice.IntN(7)]]
			ev.Lease = job.Lease{Token: fmt.Sprint("token ", uuid.NewString()), For: time.Second}
		}
		_, err = store.Apply(c.Context(), j.ID, ev)
		c.note(string(ev.Kind), err)
	}
}

// note tells whether a call has failed, as it may.
func (c *chain) note(what string, err error) (failed bool) {
	switch {
	case err == nil:
		return false
	case errors.Is(err, job.ErrRefused), errors.Is(err, ErrNotFound):
		c.refused.Add(1)
	case errors.Is(err, ErrBusy):
		c.busy.Add(1)
	default:
		c.Errorf("%s: %v", what, err)
	}
	return true
}

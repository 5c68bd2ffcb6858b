package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/uuid"

	"sidejob/internal/job"
)

// BenchmarkSchedule measures jobs that are on disk when the call returns: alone, from
// many callers that share commits, and in batches.
func BenchmarkSchedule(b *testing.B) {
	b.Run("one caller", func(b *testing.B) {
		store := openForBenchmark(b)
		for b.Loop() {
			benchSchedule(b, store, 1)
		}
		reportJobs(b, 1)
	})
	for _, callers := range []int{8, 64, 256} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			store := openForBenchmark(b)
			b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					benchSchedule(b, store, 1)
				}
			})
			reportJobs(b, 1)
		})
	}
	b.Run("batches of 100", func(b *testing.B) {
		store := openForBenchmark(b)
		for b.Loop() {
			benchSchedule(b, store, 100)
		}
		reportJobs(b, 100)
	})
}

// BenchmarkApply measures one durable step of a job's life.
func BenchmarkApply(b *testing.B) {
	store := openForBenchmark(b)
	id := benchSchedule(b, store, 1)
	for b.Loop() {
		if _, err := store.Apply(b.Context(), id, job.Event{Kind: job.Unreached, At: now(), InDoubt: true}); err != nil {
			b.Fatal(err)
		}
	}
}

func openForBenchmark(b *testing.B) Store {
	b.Helper()
	store, err := openSQLite(b.Context(), filepath.Join(b.TempDir(), "bench.db"), now())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

// benchSchedule makes n jobs with tags of their own in one call, and returns the last id.
func benchSchedule(b *testing.B, store Store, n int) (id int64) {
	orders := make([]Order, n)
	for i := range orders {
		spec := job.Spec{Type: "work", Executor: job.Trigger, TriggerTask: "task", Data: []byte(`{"userId":1}`)}
		j, _, err := job.New(spec, now(), uuid.NewString())
		if err != nil {
			b.Error(err)
			return 0
		}
		orders[i] = Order{Job: j, Source: "bench"}
	}
	placed, err := store.Schedule(b.Context(), orders, Keyed{})
	if err != nil {
		b.Error(err)
		return 0
	}
	return placed[n-1].Job.ID
}

func reportJobs(b *testing.B, each int) {
	b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "jobs/s")
}

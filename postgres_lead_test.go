package main

import (
	"strings"
	"testing"
	"time"
)

// ready is what /readyz says of who leads.
func ready(t *testing.T, w *world) (v readyView, leader string) {
	t.Helper()
	w.call("GET", "/readyz", nil).into(t, &v)
	if v.Leader != nil {
		leader = *v.Leader
	}
	return v, leader
}

func TestReadyzSaysWhoLeads(t *testing.T) {
	t.Run("alone on a SQLite file it is the one that answers", func(t *testing.T) {
		w := newWorld(t)
		if v, leader := ready(t, w); leader == "" || leader != v.Instance || v.Instances != 1 {
			t.Errorf("got %+v, led by %q; want the instance itself", v, leader)
		}
	})
	t.Run("of two on a PostgreSQL both name the same one, and the other takes over", func(t *testing.T) {
		address, _ := throwAwayCluster().freshDatabase(t)
		at := withConfig(func(c *config) { c.database = address })
		first, second := newWorld(t, at), newWorld(t, at)
		await(t, "both name the first, and count two", func() bool {
			v1, leader1 := ready(t, first)
			v2, leader2 := ready(t, second)
			return leader1 == v1.Instance && leader2 == v1.Instance && v1.Instance != v2.Instance && v1.Instances == 2 && v2.Term == 1
		})
		gauges := func(w *world) string { return string(w.call("GET", "/metrics", nil).body) }
		if got, want := gauges(first), gauges(second); !strings.Contains(got, "sidejob_leader 1\n") || !strings.Contains(want, "sidejob_leader 0\n") {
			t.Errorf("the metrics of leader and follower: got\n%s\nand\n%s", got, want)
		}
		first.halt()
		await(t, "the second leads in a second term", func() bool {
			v, leader := ready(t, second)
			return leader == v.Instance && v.Instances == 1 && v.Term == 2 && v.Status == "ready"
		})
	})
}

// await polls until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A day in which everything happens: jobs come, are canceled and replaced, the way to
// Trigger.dev fails in every manner, events are lost, doubled and late, and sidejob is
// stopped, killed and left off for hours. When the troubles are over, every row says
// what Trigger.dev says, and each job has one run. The seed gives the dice; who throws
// them first is not in its hands.
func TestADayOfTroubles(t *testing.T) {
	for _, seed := range []uint64{1} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &day{scene: newScene(t, withTasks(sceneTasks())), dice: rand.New(rand.NewPCG(seed, 7)), ended: map[int64]string{}}
				d.out.tapWith(d.disturb)
				d.in.tapWith(d.mislay)
				for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); {
					d.awake(d.between(time.Minute, 6*time.Minute))
					d.asleep(d.between(time.Minute, 5*time.Hour))
				}
				d.setWeather(0)
				d.bringLate()
				time.Sleep(20 * time.Minute)
				d.wantTruth()
				d.wantPromises()
			})
		})
	}
}

// day is a scene with bad luck.
type day struct {
	*scene
	jobs  []int64          // acknowledged
	ended map[int64]string // how each was seen to end, for good

	mu      sync.Mutex // guards what follows
	dice    *rand.Rand
	weather float64 // the chance that a request fares ill
	late    []sentCall
}

func (d *day) roll() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dice.Float64()
}

func (d *day) between(least, most time.Duration) time.Duration {
	return least + time.Duration(d.roll()*float64(most-least))
}

func pick[T any](d *day, list ...T) T { return list[int(d.roll()*float64(len(list)))] }

func (d *day) setWeather(chance float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.weather = chance
}

func (d *day) bad() bool {
	chance := d.roll()
	d.mu.Lock()
	defer d.mu.Unlock()
	return chance < d.weather
}

// awake lets sidejob run for so long while hosts ask for things.
func (d *day) awake(length time.Duration) {
	for end := time.Now().Add(length); time.Now().Before(end); {
		d.setWeather(pick(d, 0, 0.1, 0.4, 1))
		for range 2 {
			d.act()
			time.Sleep(d.between(time.Second, time.Minute))
		}
		d.note()
	}
}

// asleep stops or kills sidejob, and starts it after a while.
func (d *day) asleep(length time.Duration) {
	if d.roll() < 0.5 {
		d.crash()
	}
	d.down()
	time.Sleep(length)
	d.up()
}

func (d *day) act() {
	switch n := d.roll(); {
	case n < 0.55:
		d.ask()
	case n < 0.8 && len(d.jobs) > 0:
		d.cancelJob(pick(d, d.jobs...), "?waitMs=1")
	case n < 0.9:
		d.bringLate()
	case len(d.jobs) > 0:
		if r := d.call("POST", fmt.Sprintf("/api/jobs/%d/retry?waitMs=1", pick(d, d.jobs...)), nil); r.status == http.StatusCreated {
			d.jobs = append(d.jobs, d.view(r).ID)
		}
	}
}

// ask schedules a job of some kind; now and then it takes another's tag.
func (d *day) ask() {
	task := pick(d, "ok", "ok", "bad", "flaky", "crashes", "minute", "half-hour", "stays", "queues")
	request := map[string]any{"type": task, "executor": "trigger", "triggerTaskId": task, "removeDelay": (72 * time.Hour).Milliseconds()}
	if d.roll() < 0.4 {
		request["tag"], request["onConflict"] = pick(d, "red", "blue"), pick(d, "replace", "replaceAll", "keep")
	}
	if d.roll() < 0.3 {
		request["due"] = time.Now().Add(d.between(time.Second, time.Hour))
	}
	if d.roll() < 0.2 {
		request["autoRescheduleOnFailure"], request["retryConfig"] = true, map[string]any{"maxAttempts": 4}
	}
	r := d.call("POST", "/api/jobs?waitMs=1", request)
	switch r.status {
	case http.StatusCreated:
		d.jobs = append(d.jobs, d.view(r).ID)
	case http.StatusOK: // kept
	default:
		d.t.Errorf("schedule is answered %d %s", r.status, r.body)
	}
}

// note remembers how jobs have ended, once Trigger.dev has confirmed it.
func (d *day) note() {
	for _, j := range d.rows() {
		if _, known := d.ended[j.ID]; !hasEnded(j) || known {
			continue
		}
		if told := d.history(j.ID); !strings.Contains(told[len(told)-1], "> told ") {
			d.ended[j.ID] = j.Status + " " + string(j.Result)
		}
	}
}

// wantPromises checks that no job is lost and that none that had ended has changed.
func (d *day) wantPromises() {
	d.t.Helper()
	rows := map[int64]seenJob{}
	for _, j := range d.rows() {
		rows[j.ID] = j
	}
	counts := map[string]int{}
	for _, j := range rows {
		counts[j.Status]++
	}
	for _, id := range d.jobs {
		if _, there := rows[id]; !there {
			d.t.Errorf("job %d was acknowledged and is gone", id)
		}
	}
	for id, then := range d.ended {
		if is := rows[id].Status + " " + string(rows[id].Result); is != then {
			d.t.Errorf("job %d had ended %s and is now %s; history %q", id, then, is, d.history(id))
		}
	}
	if len(d.jobs) < 10 || counts["COMPLETED"] == 0 {
		d.t.Errorf("of %d jobs there are %v: the day was too quiet to prove anything", len(d.jobs), counts)
	}
	d.t.Logf("%d jobs: %v", len(rows), counts)
}

// disturb is the way to Trigger.dev.
func (d *day) disturb(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
	if !d.bad() {
		return pass()
	}
	plain := func(status int, kind, body string) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: -1, Request: r,
		}, nil
	}
	switch pick(d, "nothing", "reset", "lost", "lost", "late", "overdue", "500", "502", "429", "garbage", "401") {
	case "nothing":
		return nil, errNoRoute
	case "reset":
		return nil, errBroken
	case "lost":
		if _, err := pass(); err != nil {
			return nil, err
		}
		return nil, errBroken
	case "late":
		pauseAtMost(r.Context(), d.between(time.Second, 9*time.Second))
		return pass()
	case "overdue": // it arrives when its sender has given up
		res, err := pass()
		<-r.Context().Done()
		if err == nil {
			_ = res.Body.Close()
		}
		return nil, r.Context().Err()
	case "500":
		return plain(500, "application/json", `{"error":"Internal Server Error"}`)
	case "502":
		return plain(502, "text/html", "<html>bad gateway</html>")
	case "429":
		return plain(429, "application/json", `{"error":"Rate limit exceeded"}`)
	case "401":
		return plain(401, "application/json", `{"error":"Invalid API key"}`)
	}
	return plain(200, "text/html", "<html>hotel wifi</html>")
}

func pauseAtMost(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// mislay is the way of the events: some are lost, some kept back, some doubled.
func (d *day) mislay(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
	switch {
	case d.roll() < 0.2:
		return nil, errBroken
	case d.roll() < 0.4:
		d.mu.Lock()
		d.late = append(d.late, sentCall{header: r.Header.Clone(), body: spareBody(r), at: time.Now()})
		d.mu.Unlock()
		if d.roll() < 0.5 {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}
	}
	return pass()
}

// bringLate brings events that were kept back, in any order. The bare signature has
// no time that could be over.
func (d *day) bringLate() {
	d.mu.Lock()
	events := d.late
	d.late = nil
	d.dice.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	d.mu.Unlock()
	for _, ev := range slices.Concat(events, events[:len(events)/2]) {
		r := d.call("POST", webhookPath, ev.body, "trigger-signature", ev.header.Get("trigger-signature"))
		if r.status != http.StatusOK {
			d.t.Errorf("a late event is answered %d %s", r.status, r.body)
		}
	}
}

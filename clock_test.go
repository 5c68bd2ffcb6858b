package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A host whose clock is set back by a day has a database from tomorrow. What was in
// flight goes on within two minutes all the same, and no job is sent twice. Each of
// the two lives is a bubble of its own, and a bubble begins at the same time.
func TestAClockSetBackHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		leave  func(*scene) []int64 // jobs in flight
		meet   tap                  // what the next life meets in its first half minute
		within func(seenJob) bool   // how each of them is to be in two minutes more
	}{
		"a submit whose reply was lost in a crash":         {leaveMidSend, nil, hasRun},
		"a submit that was not sent before a crash":        {leaveUnsent, nil, hasRun},
		"submits that wait for their next try":             {leaveWaiting, nil, hasRun},
		"submits that wait, and a key refused at first":    {leaveWaiting, refuse, hasRun},
		"submits that wait, and a Trigger.dev still down":  {leaveWaiting, unreachable, hasRun},
		"a cancel that waits for its next try":             {leaveWaitingCancel, nil, hasEnded},
		"a cancel that was taken and has not shown itself": {leaveStopping, nil, hasEnded},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var jobs []int64
			inLife(t, dir, func(s *scene) {
				s.down()
				time.Sleep(24 * time.Hour)
				s.up()
				jobs = c.leave(s)
				s.kill()
				copySQLite(s.t, s.cfg.database, filepath.Join(dir, "left.db"))
				// Trigger.dev's clock is right, and goes on in the next life.
				callHandler(s.t, s.emu, "POST", "/emulator/advance", map[string]any{"ms": (25 * time.Hour).Milliseconds()})
			})
			inLife(t, dir, func(s *scene) {
				s.down()
				s.out.tapWith(c.meet)
				s.cfg.database = filepath.Join(dir, "left.db")
				s.up()
				time.Sleep(30 * time.Second)
				s.out.tapWith(nil)
				end := time.Now().Add(2 * time.Minute)
				for _, id := range jobs {
					s.soonEnough(id, time.Until(end), "it goes on", c.within)
					s.wantOneRun(id)
				}
			})
		})
	}
}

// inLife runs a scene that shares Trigger.dev with the other lives of the folder.
func inLife(t *testing.T, dir string, do func(*scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()), withoutWebhook(), func(w *world) { w.mock.StatePath = filepath.Join(dir, "runs") })
		do(s)
	})
}

func (s *scene) wantOneRun(id int64) {
	s.t.Helper()
	runs := 0
	for _, run := range s.truth() {
		if slices.Contains(run.Tags, fmt.Sprint(rowTagPrefix, id)) {
			runs++
		}
	}
	if runs != 1 {
		s.t.Errorf("job %d has %d runs, want 1", id, runs)
	}
}

func refuse(r *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
	return wrongAnswer(r, "401"), nil
}

func unreachable(*http.Request, func() (*http.Response, error)) (*http.Response, error) {
	return nil, errNoRoute
}

// leaveMidSend leaves a submit that has arrived, whose run fails at once and frees its
// key, and no reply.
func leaveMidSend(s *scene) []int64 {
	s.out.tapWith(func(r *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
		if isSubmit(r) {
			_, _ = pass()
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	time.Sleep(time.Minute) // until the poll under way is over
	id := s.triggerJob("bad", "removeDelay", (48 * time.Hour).Milliseconds()).ID
	return []int64{id}
}

// leaveUnsent leaves a row that is held for a submit that never arrives.
func leaveUnsent(s *scene) []int64 {
	s.out.tapWith(func(r *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	return []int64{s.triggerJob("stays").ID}
}

// leaveWaiting leaves jobs that have been tried some times.
func leaveWaiting(s *scene) []int64 {
	s.out.cut(errNoRoute)
	var ids []int64
	for range 20 {
		ids = append(ids, s.triggerJob("stays").ID)
	}
	time.Sleep(5 * time.Minute)
	return ids
}

func leaveWaitingCancel(s *scene) []int64 {
	id := s.triggerJob("stays").ID
	s.out.cut(errNoRoute)
	s.cancelJob(id, "")
	time.Sleep(5 * time.Minute)
	return []int64{id}
}

// leaveStopping leaves a cancel that was taken, by a Trigger.dev that then fell silent.
func leaveStopping(s *scene) []int64 {
	id := s.triggerJob("stays").ID
	run := s.soonEnough(id, time.Minute, "it has a run", hasRun).TriggerRunID
	s.out.tapWith(func(r *http.Request, _ func() (*http.Response, error)) (*http.Response, error) {
		if r.Method != http.MethodPost {
			return nil, errNoRoute
		}
		res := wrongAnswer(r, "")
		res.Header.Set("Content-Type", "application/json")
		res.Body = io.NopCloser(strings.NewReader(fmt.Sprintf(`{"id":%q}`, run)))
		return res, nil
	})
	s.cancelJob(id, "")
	return []int64{id}
}

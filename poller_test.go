package main

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnIdleHourMakesNoNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		s.wait(s.triggerJob("ok").ID)
		time.Sleep(10 * time.Second)
		s.out.forget()
		time.Sleep(time.Hour)
		polls := len(s.out.calls("GET", streamPath))
		if n := len(s.out.calls("", "")) - polls; n > 12 {
			t.Errorf("%d requests were made in an hour without a job, want no more than one each sync", n)
		}
		if polls < 100 || polls > 240 {
			t.Errorf("the stream was polled %d times in an hour; the server holds a poll for 20 s", polls)
		}
	})
}

// A young run is asked about every few seconds, an old one once in a sync interval,
// and nothing in between is hammered.
func TestARunIsAskedAboutAtItsOwnPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(sceneTasks()))
		j := s.triggerJob("stays")
		begun := time.Now()
		time.Sleep(45 * time.Minute)
		var asks []time.Duration
		for _, call := range s.out.calls("GET", retrievePath+j.TriggerRunID) {
			asks = append(asks, call.at.Sub(begun))
		}
		for i := 1; i < len(asks); i++ {
			gap, age := asks[i]-asks[i-1], asks[i-1]
			if slowest := max(age/8, 2600*time.Millisecond); gap > slowest || gap > 6*time.Minute+time.Second {
				t.Errorf("at the age of %s it was not asked about for %s, want at most %s", age, gap, slowest)
			}
		}
		if first := asks[0]; first > 3*time.Second {
			t.Errorf("it was first asked about after %s", first)
		}
		if n := len(asks); n < 45 || n > 90 {
			t.Errorf("it was asked about %d times in 45 minutes, want 45 to 90", n)
		}
	})
}

func TestARunThatIsDueFarAheadIsAskedAboutSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(sceneTasks()), withConfig(func(c *config) { c.syncEvery = time.Minute }))
		due := time.Now().Add(10 * time.Minute)
		j := s.triggerJob("ok", "due", due)
		time.Sleep(9 * time.Minute)
		if n := len(s.out.calls("GET", retrievePath)); n < 7 || n > 25 {
			t.Errorf("it was asked about %d times in the 9 minutes before it was due, want 7 to 25", n)
		}
		done := s.wait(j.ID)
		if late := time.Since(done.Finished); done.Status != "COMPLETED" || late > 5*time.Second {
			t.Errorf("it ended %s, and sidejob knew %s later; want COMPLETED, a few seconds", done.Status, late)
		}
	})
}

// An event that closes a row is checked with Trigger.dev at once.
func TestAnEventIsCheckedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, withTasks(sceneTasks()))
		j := s.triggerJob("minute")
		time.Sleep(59 * time.Second)
		s.out.forget()
		j = s.wait(j.ID)
		time.Sleep(500 * time.Millisecond)
		asked := s.out.calls("GET", retrievePath+j.TriggerRunID)
		if len(asked) == 0 || asked[len(asked)-1].at.Sub(j.Finished) > 200*time.Millisecond {
			t.Errorf("of %d questions none came with the event", len(asked))
		}
		s.out.forget()
		time.Sleep(30 * time.Second)
		if n := len(s.out.calls("GET", retrievePath)); n != 0 {
			t.Errorf("a confirmed end was asked about %d times more", n)
		}
	})
}

// The limit of requests is shared with the host's own; asking leaves half of it.
func TestAskingLeavesRoomInTheRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newQuietScene(t, withTasks(sceneTasks()), func(w *world) { w.mock.RateLimit, w.mock.RateRefill = 40, 15 })
		for range 10 {
			s.triggerJob("stays")
		}
		s.out.tapWith(func(_ *http.Request, pass func() (*http.Response, error)) (*http.Response, error) {
			res, err := pass()
			if err == nil && res.StatusCode == http.StatusTooManyRequests {
				t.Errorf("a request was refused for the rate limit")
			}
			return res, err
		})
		time.Sleep(time.Minute)
		for _, j := range s.rows() {
			if !isRunning(j) {
				t.Errorf("job %d is %s, want EXECUTING", j.ID, j.Status)
			}
		}
		if n := len(s.out.calls("GET", retrievePath)); n < 30 {
			t.Errorf("only %d questions in a minute: asking is starved", n)
		}
	})
}

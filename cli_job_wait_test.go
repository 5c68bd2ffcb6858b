package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitExits(t *testing.T) {
	for _, c := range []struct {
		status string
		result any
		code   int
		err    string
	}{
		{"COMPLETED", "done", 0, ""},
		{"FAILED", map[string]any{"error": map[string]any{"message": "smtp\ndown", "name": "Error"}}, 4, "sidejob: job 7 is FAILED: smtp down\n"},
		{"FAILED", map[string]any{"error": []int{1}}, 4, "sidejob: job 7 is FAILED: [1]\n"},
		{"CANCELED", map[string]any{"canceled": true}, 4, "sidejob: job 7 is CANCELED\n"},
	} {
		t.Run(c.status, func(t *testing.T) {
			api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": endedReply(c.status, c.result)})
			got := at(t, api.URL).run("job", "wait", "7")
			wantCode(t, got, c.code)
			wantContains(t, "stdout", got.out, c.status)
			if got.err != c.err {
				t.Errorf("got on stderr %q, want %q", got.err, c.err)
			}
			if q := api.only(t).Query; q != "waitMs=0" {
				t.Errorf("got query %q, want waitMs=0", q)
			}
		})
	}
	t.Run("when its time is up", func(t *testing.T) {
		api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": jobReply(200, nil)})
		got := at(t, api.URL).run("job", "wait", "7", "--timeout=50ms")
		wantCode(t, got, 1)
		if want := "sidejob: job 7 is still PENDING after 50ms\n"; got.err != want || got.out != "" {
			t.Errorf("got %q and on stdout %q, want %q and nothing", got.err, got.out, want)
		}
	})
	t.Run("for a job that does not exist", func(t *testing.T) {
		wantCode(t, at(t, newFakeAPI(t, nil).URL).run("job", "wait", "7", "--timeout=10s"), 3)
	})
}

// waitServer stands in for a sidejob whose job ends at some time and that is down
// for a while. It holds a question as long as it is asked to.
type waitServer struct {
	begun          time.Time
	ends           time.Duration
	downFrom, upAt time.Duration
	eager          bool // answers at once, as a server that is being stopped does
	questions      int
}

func (s *waitServer) answer(r *http.Request) (*http.Response, error) {
	s.questions++
	ms, err := strconv.Atoi(r.URL.Query().Get("waitMs"))
	if err != nil {
		return nil, err
	}
	hold := min(time.Duration(ms)*time.Millisecond, max(0, s.ends-time.Since(s.begun)))
	if s.down(time.Since(s.begun)) {
		return nil, refusal()
	}
	if !s.eager {
		if err := s.hold(r.Context(), hold); err != nil {
			return nil, err
		}
	}
	if time.Since(s.begun) >= s.ends {
		return response(endedReply("COMPLETED", nil)), nil
	}
	return response(jobReply(200, map[string]any{"status": "EXECUTING"})), nil
}

func (s *waitServer) down(at time.Duration) bool { return at >= s.downFrom && at < s.upAt }

// hold waits, but loses the connection when the server goes down meanwhile.
func (s *waitServer) hold(ctx context.Context, d time.Duration) error {
	now := time.Since(s.begun)
	if now < s.downFrom && s.downFrom < s.upAt && now+d > s.downFrom {
		if err := pauseFor(ctx, s.downFrom-now); err != nil {
			return err
		}
		return errReset
	}
	return pauseFor(ctx, d)
}

func TestWaitOutlastsTheServer(t *testing.T) {
	const forever = 1000 * time.Hour
	for _, c := range []struct {
		name      string
		server    waitServer
		timeout   time.Duration
		code      int
		took      time.Duration
		text      string
		questions int // at most
	}{
		{"a job that takes long", waitServer{ends: 10 * time.Minute}, 0, 0, 10 * time.Minute, "", 32},
		{"a restart", waitServer{ends: time.Minute, downFrom: 30 * time.Second, upAt: 45 * time.Second}, 2 * time.Minute, 0, time.Minute, "", 25},
		{"a restart without a timeout", waitServer{ends: time.Minute, downFrom: 30 * time.Second, upAt: 45 * time.Second}, 0, 0, time.Minute, "", 25},
		{"a server that comes late", waitServer{ends: time.Minute, upAt: 20 * time.Second}, 2 * time.Minute, 0, time.Minute, "", 30},
		{"a server that is not there, without a timeout", waitServer{upAt: forever}, 0, 5, 0, "is sidejob running?", 1},
		{"a server that does not come back, without a timeout", waitServer{ends: forever, downFrom: 10 * time.Second, upAt: forever}, 0, 5, 70 * time.Second, "is sidejob running?", 65},
		{"a server that does not come back", waitServer{ends: forever, downFrom: 10 * time.Second, upAt: forever}, 30 * time.Second, 5, 30 * time.Second, "is sidejob running?", 25},
		{"a job that does not end", waitServer{ends: forever}, 90 * time.Second, 1, 90 * time.Second, "job 7 is still EXECUTING after 1m30s", 8},
		{"a server that holds no question", waitServer{ends: 10 * time.Second, eager: true}, time.Minute, 0, 10 * time.Second, "", 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.server.begun = time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				if c.timeout > 0 {
					ctx, cancel = context.WithTimeoutCause(ctx, c.timeout, errWaitedEnough)
				}
				defer cancel()
				command := jobWaitCommand{jobArg: jobArg{ID: 7}, Timeout: c.timeout}
				_, err := command.wait(ctx, callerBy(c.server.answer))
				if code := codeOfError(err); code != c.code {
					t.Errorf("got exit code %d (%v), want %d", code, err, c.code)
				}
				if err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %q, want in it %q", err, c.text)
				}
				if took := time.Since(c.server.begun); took < c.took || took > c.took+2*time.Second {
					t.Errorf("got an end after %s, want %s", took, c.took)
				}
				if c.server.questions > c.questions {
					t.Errorf("got %d questions, want at most %d", c.server.questions, c.questions)
				}
			})
		})
	}
}

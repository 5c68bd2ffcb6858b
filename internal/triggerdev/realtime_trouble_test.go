package triggerdev

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestADroppedShapeIsReadAnew(t *testing.T) {
	for name, dropped := range map[string]poll{
		"by a 409 with a new handle":    {status: 409, handle: "new", body: refetchBody},
		"by a 409 without":              {status: 409, body: refetchBody},
		"by a message with a 200":       {handle: "new", offset: "9", body: refetchBody},
		"by a 409 that says no more":    {status: 409},
		"by a message between messages": {handle: "new", offset: "9", body: list(insert("z", "PENDING"), `{"headers":{"control":"must-refetch"}}`, upToDate)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dropped.want = "handle=h&live=true&offset=1"
				again := "offset=-1"
				if dropped.handle != "" {
					again = "handle=new&offset=-1"
				}
				s := follow(t, RealtimeFilter{},
					poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("a", "PENDING"), upToDate)},
					dropped,
					poll{want: again, handle: "new", offset: "5", body: list(insert("b", "PENDING"), upToDate)},
					poll{want: "handle=new&live=true&offset=5", handle: "new", offset: "6", body: list(update("a", `"status":"CANCELED"`), upToDate)},
				)
				next(t, s)
				first := s.MintedAt()
				time.Sleep(time.Hour)
				wants(t, next(t, s), "b PENDING")
				if !s.MintedAt().After(first.Add(time.Hour)) {
					t.Errorf("minted at %v and %v, want the second later", first, s.MintedAt())
				}
				wants(t, next(t, s), "") // of the row of the old shape nothing is left
			})
		})
	}
}

func TestAShapeThatIsDroppedAgainAndAgainIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", status: 409, handle: "x", body: refetchBody},
			poll{want: "handle=x&offset=-1", status: 409, handle: "y", body: refetchBody},
			poll{want: "offset=-1", handle: "y", offset: "1", body: refetchBody},
			poll{want: "handle=y&offset=-1", handle: "y", offset: "1", body: refetchBody},
		)
		_, err := s.Next(t.Context())
		if !hasStatus(err, http.StatusConflict) || OutcomeOf(err) != Unknown {
			t.Errorf("got %v (%v), want the 409", err, OutcomeOf(err))
		}
		_, err = s.Next(t.Context())
		var bad *BadReplyError
		if !errors.As(err, &bad) || !errors.Is(err, errDropped) {
			t.Errorf("got %v, want a bad reply that says so", err)
		}
	})
}

func TestNothingIsLostByAnError(t *testing.T) {
	cut := strings.TrimSuffix(list(insert("b", "PENDING"), insert("c", "PENDING")), "]")
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("a", "PENDING"))},
			poll{want: "handle=h&offset=1", status: 502, body: "<html>"},
			poll{want: "handle=h&offset=1", handle: "h", offset: "2", body: cut},
			poll{want: "handle=h&offset=1", handle: "h", offset: "3", body: list(insert("b", "PENDING"), insert("c", "EXECUTING"), upToDate)},
			poll{want: "handle=h&live=true&offset=3", status: 503},
			poll{want: "handle=h&offset=3", handle: "h", offset: "4", body: list(
				insert("a", "CANCELED"), insert("b", "PENDING"), insert("c", "EXECUTING"), upToDate)},
			poll{want: "handle=h&live=true&offset=4", handle: "h", offset: "5", body: list(upToDate)},
		)
		for range 2 {
			if runs, err := s.Next(t.Context()); err == nil || runs != nil {
				t.Fatalf("got %v, %v; want an error alone", runs, err)
			}
		}
		wants(t, next(t, s), "a PENDING, b PENDING, c EXECUTING")
		if _, err := s.Next(t.Context()); OutcomeOf(err) != Unknown {
			t.Errorf("got %v, want the 503", err)
		}
		// A server that believes it has sent a change does not send it in a live
		// poll again; what it sends else has been returned before.
		wants(t, next(t, s), "a CANCELED")
		wants(t, next(t, s), "")
	})
}

func TestRealtimeRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		status      int
		body        string
		outcome     Outcome
		keyRefused  bool
		unavailable bool
		again       string // query of the poll after it
	}{
		"400": {400, `{"error":"Query Error"}`, Refused, false, false, "offset=-1"},
		"401": {401, `{"error":"Invalid or Missing API key"}`, NotReached, true, false, "handle=h&live=true&offset=1"},
		"403": {403, `{"error":"Unauthorized"}`, NotReached, true, false, "handle=h&live=true&offset=1"},
		"404": {404, `<html>`, NotReached, false, true, "offset=-1"},
		"429": {429, `{"error":"Too many concurrent requests"}`, NotReached, false, false, "handle=h&live=true&offset=1"},
		"500": {500, ``, Unknown, false, false, "handle=h&offset=1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := follow(t, RealtimeFilter{},
					poll{want: "offset=-1", handle: "h", offset: "1", body: list(upToDate)},
					poll{want: "handle=h&live=true&offset=1", status: tc.status, body: tc.body},
					poll{want: tc.again, handle: "h", offset: "2", body: list(upToDate)},
				)
				next(t, s)
				_, err := s.Next(t.Context())
				var e *Error
				if !errors.As(err, &e) || e.Status != tc.status || e.Path != "/realtime/v1/runs" {
					t.Fatalf("got %v, want an Error of status %d", err, tc.status)
				}
				if OutcomeOf(err) != tc.outcome || KeyRefused(err) != tc.keyRefused || errors.Is(err, ErrNoRealtime) != tc.unavailable {
					t.Errorf("got %v, key refused %v, no realtime %v", OutcomeOf(err), KeyRefused(err), errors.Is(err, ErrNoRealtime))
				}
				next(t, s)
			})
		})
	}
}

func TestARealtimeRefusalDoesNotHoldOtherCallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clientOf(t, Config{HTTP: inProcess(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusTooManyRequests)
		}))})
		_, err := c.Snapshot(t.Context())
		var e *Error
		if !errors.As(err, &e) || !e.ResetAt.Equal(time.Now().Add(30*time.Second)) {
			t.Errorf("got %v, want to be told to wait 30 s", err)
		}
		if got := paced(t, c, 1); got != 0 {
			t.Errorf("another call had to wait %v", got)
		}
	})
}

func TestRealtimeBadReplies(t *testing.T) {
	whole := insert("a", "PENDING")
	for name, p := range map[string]poll{
		"a page of HTML":             {handle: "h", offset: "1", body: "<html>"},
		"nothing":                    {handle: "h", offset: "1"},
		"no content":                 {handle: "h", offset: "1", status: 204},
		"null":                       {handle: "h", offset: "1", body: "null"},
		"an object":                  {handle: "h", offset: "1", body: upToDate},
		"a list that is cut off":     {handle: "h", offset: "1", body: "[" + upToDate},
		"two lists":                  {handle: "h", offset: "1", body: list(upToDate) + "[]"},
		"a message that is none":     {handle: "h", offset: "1", body: list(`"up-to-date"`, upToDate)},
		"no handle":                  {offset: "1", body: list(upToDate)},
		"no offset":                  {handle: "h", body: list(upToDate)},
		"no end and no progress":     {handle: "h", offset: "-1", body: list(whole)},
		"an unknown operation":       {handle: "h", offset: "1", body: list(strings.Replace(whole, "insert", "upsert", 1), upToDate)},
		"a row without key":          {handle: "h", offset: "1", body: list(strings.Replace(whole, `"key":"a"`, `"key":""`, 1), upToDate)},
		"a row without value":        {handle: "h", offset: "1", body: list(`{"key":"a","headers":{"operation":"insert"}}`, upToDate)},
		"a row without status":       {handle: "h", offset: "1", body: list(insert("a", ""), upToDate)},
		"a status that becomes null": {handle: "h", offset: "1", body: list(whole, update("a", `"status":null`), upToDate)},
		"a status that is a number":  {handle: "h", offset: "1", body: list(whole, update("a", `"status":7`), upToDate)},
		"a time that is none":        {handle: "h", offset: "1", body: list(whole, update("a", `"startedAt":"soon"`), upToDate)},
		"a number that is none":      {handle: "h", offset: "1", body: list(whole, update("a", `"costInCents":"NaN"`), upToDate)},
		"tags that are none":         {handle: "h", offset: "1", body: list(whole, update("a", `"runTags":"{"`), upToDate)},
	} {
		t.Run(name, func(t *testing.T) {
			p.want = "offset=-1"
			s := follow(t, RealtimeFilter{}, p, poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("ok", "PENDING"), upToDate)})
			runs, err := s.Next(t.Context())
			var bad *BadReplyError
			if !errors.As(err, &bad) || OutcomeOf(err) != Unknown || runs != nil {
				t.Fatalf("got %v, %v; want a bad reply of unknown outcome", runs, err)
			}
			if _, err := s.Next(t.Context()); err != nil {
				t.Errorf("the next good reply: got %v", err)
			}
		})
	}
}

func TestAReplyThatIsTooLongIsABadOne(t *testing.T) {
	body := list(insert("a", "PENDING"), upToDate)
	for limit, want := range map[int64]error{int64(len(body)): nil, int64(len(body)) - 1: errTooLong} {
		s := follow(t, RealtimeFilter{}, poll{want: "offset=-1", handle: "h", offset: "1", body: body})
		if s.limit != maxShapeReply {
			t.Errorf("got a limit of %d, want %d", s.limit, maxShapeReply)
		}
		s.limit = limit
		if _, err := s.Next(t.Context()); !errors.Is(err, want) {
			t.Errorf("%d bytes, of which %d are read: got %v, want %v", len(body), limit, err, want)
		}
	}
}

func TestWhatIsNewInTheProtocolPasses(t *testing.T) {
	s := follow(t, RealtimeFilter{}, poll{want: "offset=-1", handle: "h", offset: "1", body: list(
		`{"headers":{"control":"snapshot-end","lsn":7}}`,
		`{"headers":{"event":"move-out"}}`,
		insert("a", "PONDERING"),
		update("a", `"newColumn":{"x":[1]},"realtimeStreams":"{}"`),
		upToDate)})
	wants(t, next(t, s), "a PONDERING")
}

func TestALivePollMayTakeLongerThanOtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})
		c := clientOf(t, Config{Timeout: time.Second, HTTP: inProcess(hung)})
		start := time.Now()
		_, err := c.Subscribe(RealtimeFilter{}).Next(t.Context())
		var e *TransportError
		if !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a timeout", err)
		}
		if got := time.Since(start); got != pollTimeout {
			t.Errorf("got a timeout after %v, want %v", got, pollTimeout)
		}
	})
}

func TestAStreamEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(upToDate)},
			poll{want: "handle=h&live=true&offset=1", handle: "h", offset: "1", body: list(upToDate)},
		)
		next(t, s)
		if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the error of the context", err)
		}
		if _, err := s.Next(ctx); OutcomeOf(err) != NotReached {
			t.Errorf("got %v, want no further request", err)
		}
	})
}

func TestAServerThatDoesNotHoldIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		c := clientOf(t, Config{HTTP: inProcess(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked > 100 {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			w.Header().Set("electric-handle", "h")
			w.Header().Set("electric-offset", "1")
			_, _ = io.WriteString(w, list(upToDate))
		}))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Millisecond)
		defer cancel()
		s := c.Subscribe(RealtimeFilter{})
		for {
			if _, err := s.Next(ctx); err != nil {
				if OutcomeOf(err) != NotReached || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the end of the context", err)
				}
				break
			}
		}
		if asked < 60 || asked > 62 {
			t.Errorf("got %d requests in a minute, want about 61", asked)
		}
	})
}

func TestAFilterThatCannotBeAskedForIsNotSent(t *testing.T) {
	for name, f := range map[string]RealtimeFilter{
		"a comma":             {Tags: []string{"a,b"}},
		"a quote":             {Tags: []string{`a"b`}},
		"a backslash":         {Tags: []string{`a\b`}},
		"a control character": {Tags: []string{"a\nb"}},
		"an empty tag":        {Tags: []string{""}},
		"a column of two":     {SkipColumns: []string{"output,metadata"}},
		"a window too long":   {Since: 25 * time.Hour},
		"a negative window":   {Since: -1},
	} {
		_, err := follow(t, f).Next(t.Context())
		var invalid *InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: got %v, want an InvalidError", name, err)
		}
	}
}

func FuzzStreamReads(f *testing.F) {
	for _, name := range []string{"realtime-snapshot.json", "realtime-live-update.json"} {
		f.Add(golden(f, name))
	}
	f.Add(list(insert("a", "PENDING"), update("a", `"status":"CANCELED","runTags":"{a}","error":"{}"`), upToDate))
	f.Add(list(insert("a", "PENDING"), `{"key":"a","headers":{"operation":"delete"}}`))
	f.Add(list(update("a", `"status":"x","status":null`), strings.ReplaceAll(insert("a", "CANCELED"), "insert", "update")))
	f.Add(strings.ReplaceAll(list(insert("k", "FAILED")), "k", followedKey))
	f.Fuzz(func(t *testing.T, body string) {
		header := http.Header{"Electric-Handle": {"h"}, "Electric-Offset": {"1"}}
		read := func(s *Stream) error {
			var got reply
			return s.read(&http.Response{Header: header, Body: io.NopCloser(strings.NewReader(body))}, &got)
		}
		s := clientOf(t, Config{}).Subscribe(RealtimeFilter{})
		failed := read(s)
		if failed == nil && !json.Valid([]byte(body)) {
			t.Fatalf("%q was read, which is not JSON", body)
		}
		again := read(s)
		once := clientOf(t, Config{}).Subscribe(RealtimeFilter{})
		_ = read(once)
		got, want := s.take(), once.take()
		if failed == nil && again == nil && states(got) != states(want) {
			t.Errorf("read twice: got %q, want %q as once", states(got), states(want))
		}
		for _, r := range got {
			if r.ID == "" || r.Status == "" || r.CreatedAt.IsZero() {
				t.Errorf("got %+v, want a whole row", r)
			}
			if r.Output != nil && !json.Valid(r.Output) || r.Metadata != nil && !json.Valid(r.Metadata) {
				t.Errorf("got output %q and metadata %q, want JSON", r.Output, r.Metadata)
			}
		}
	})
}

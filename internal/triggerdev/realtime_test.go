package triggerdev

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	followedKey = `\"public\".\"TaskRun\"/\"cmekq3v7x0001a4l8h2df0006\"`
	upToDate    = `{"headers":{"control":"up-to-date"}}`
	refetchBody = `[{"headers":{"control":"must-refetch"}}]`
)

// poll is one request that a shape expects, by its query without tags and
// columns, and how it answers.
type poll struct {
	want   string
	status int // 200 when zero
	handle string
	offset string
	cursor string
	body   string
}

// shape answers polls in the order of its list, in process: it may be used in a
// synctest bubble.
type shape struct {
	t     *testing.T
	polls []poll
	hold  time.Duration // of live polls
}

func (s *shape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/realtime/v1/runs" || r.Method != http.MethodGet {
		s.t.Errorf("got %s %s", r.Method, r.URL.Path)
	}
	if len(s.polls) == 0 {
		s.t.Errorf("got %s after the last poll that was expected", r.URL.RawQuery)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	p := s.polls[0]
	s.polls = s.polls[1:]
	q := r.URL.Query()
	q.Del("tags")
	q.Del("skipColumns")
	if got := q.Encode(); got != p.want {
		s.t.Errorf("got query %s, want %s", got, p.want)
	}
	if q.Has("live") {
		time.Sleep(s.hold)
	}
	for name, value := range map[string]string{"electric-handle": p.handle, "electric-offset": p.offset, "electric-cursor": p.cursor} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	if p.status != 0 {
		w.WriteHeader(p.status)
	}
	_, _ = io.WriteString(w, p.body)
}

// inProcess carries requests to h without a socket.
func inProcess(h http.Handler) *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
		return w.Result(), nil
	})}
}

// follow gives a stream whose polls are answered as listed, all of which must
// be made before the test ends.
func follow(t *testing.T, f RealtimeFilter, polls ...poll) *Stream {
	t.Helper()
	s := &shape{t: t, polls: polls, hold: 20 * time.Second}
	t.Cleanup(func() {
		if len(s.polls) > 0 {
			t.Errorf("got no poll %s", s.polls[0].want)
		}
	})
	return clientOf(t, Config{HTTP: inProcess(s)}).Subscribe(f)
}

// next reads the next changes of a stream that must not fail.
func next(t *testing.T, s *Stream) []RealtimeRun {
	t.Helper()
	runs, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// states names runs by id and status.
func states(runs []RealtimeRun) string {
	var out []string
	for _, r := range runs {
		out = append(out, r.ID+" "+r.Status)
	}
	return strings.Join(out, ", ")
}

// wants fails unless runs are in these states.
func wants(t *testing.T, runs []RealtimeRun, want string) {
	t.Helper()
	if got := states(runs); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// insert is a message with a whole row.
func insert(id, status string) string {
	return `{"key":"` + id + `","headers":{"operation":"insert"},"value":{"friendlyId":"` + id +
		`","taskIdentifier":"t","createdAt":"2026-08-20T09:04:00.000","status":"` + status + `"}}`
}

// update is a message with some columns, given as JSON members.
func update(id, columns string) string {
	return `{"key":"` + id + `","headers":{"operation":"update"},"value":{` + columns + `}}`
}

func list(messages ...string) string { return "[" + strings.Join(messages, ",") + "]" }

func TestAStreamReadsTheSnapshotAndThenWaitsForChanges(t *testing.T) {
	var recorded map[string]string
	if err := json.Unmarshal([]byte(golden(t, "realtime-headers.json")), &recorded); err != nil {
		t.Fatal(err)
	}
	var asked []string
	var header http.Header
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked, header = append(asked, r.URL.RawQuery), r.Header
		for name, value := range recorded {
			w.Header().Set(name, value)
		}
		body := golden(t, "realtime-snapshot.json")
		if r.URL.Query().Get("live") == "true" {
			body = golden(t, "realtime-live-update.json")
		}
		answer(http.StatusOK, body)(w, r)
	}).Subscribe(RealtimeFilter{Tags: []string{"order_5521", "a b"}, Since: 90 * time.Minute})

	runs := next(t, s)
	wants(t, runs, "run_cmekq3v7x0001a4l8h2df0006 EXECUTING")
	runs = next(t, s)
	wants(t, runs, "run_cmekq3v7x0001a4l8h2df0006 COMPLETED_SUCCESSFULLY")
	r := runs[0]
	sameJSON(t, "output", string(r.Output), `{"trackingId":"trk_90871"}`)
	sameJSON(t, "metadata", string(r.Metadata), `{"progress":0.4,"step":"pick"}`)
	if r.Task != "ship-order" || !r.CompletedAt.Equal(at("2026-08-20T09:04:40.110Z")) || r.CompletedAt.Location() != time.UTC ||
		!r.StartedAt.Equal(at("2026-08-20T09:04:00.690Z")) || !r.ExpiredAt.IsZero() || r.DurationMs != 9220 ||
		r.CostInCents != 0.00121 || r.IsTest || r.Error != nil || r.OutputElsewhere ||
		len(r.Tags) != 1 || r.Tags[0] != "order_5521" {
		t.Errorf("got %+v", r)
	}

	const fixed = "&skipColumns=payload%2CpayloadType&tags=order_5521%2Ca+b"
	want := "createdAt=5400s&offset=-1" + fixed + "\n" +
		"createdAt=5400s&cursor=42&handle=runs_1787130000000_41_a1b2c3d4&live=true&offset=1787216680118_42" + fixed
	if got := strings.Join(asked, "\n"); got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
	for name, want := range map[string]string{
		"Authorization":              "Bearer " + testKey,
		"X-Trigger-Api-Version":      "2025-07-16",
		"X-Trigger-Electric-Version": "1.0.0-beta.1",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestOtherCallsDoNotSpeakElectric(t *testing.T) {
	c, got := record(t, Config{}, golden(t, "list-runs-last-page.json"))
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := got.Header.Values("X-Trigger-Electric-Version"); g != nil {
		t.Errorf("got %q, want none", g)
	}
}

func TestASnapshotMayComeInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "0_0", body: list(insert("a", "PENDING"), insert("b", "PENDING"))},
			poll{want: "handle=h&offset=0_0", handle: "h", offset: "0_1", body: list(update("a", `"status":"EXECUTING"`))},
			poll{want: "handle=h&offset=0_1", handle: "h", offset: "0_2", body: list(upToDate)},
			poll{want: "handle=h&live=true&offset=0_2", handle: "h", offset: "0_3", cursor: "7", body: list(insert("c", "DELAYED"))},
			poll{want: "handle=h&offset=0_3", handle: "h", offset: "0_4", body: list(upToDate)},
			poll{want: "handle=h&live=true&offset=0_4", handle: "h", offset: "0_4", cursor: "8", body: list(upToDate)},
			poll{want: "cursor=8&handle=h&live=true&offset=0_4", handle: "h", offset: "0_4", body: list(upToDate)},
		)
		wants(t, next(t, s), "a EXECUTING, b PENDING")
		wants(t, next(t, s), "c DELAYED")
		wants(t, next(t, s), "")
		wants(t, next(t, s), "")
	})
}

func TestAChangeOfSomeColumnsIsReturnedAsTheWholeRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("a", "PENDING"),
				update("a", `"runTags":"{x}","startedAt":"2026-08-20 09:05:00.5","metadata":"{\"n\":1}"`), upToDate)},
			poll{want: "handle=h&live=true&offset=1", handle: "h", offset: "2", body: list(
				update("a", `"status":"EXECUTING"`), update("a", `"metadata":null,"usageDurationMs":"12"`), upToDate)},
		)
		next(t, s)
		runs := next(t, s)
		wants(t, runs, "a EXECUTING")
		r := runs[0]
		if r.Task != "t" || len(r.Tags) != 1 || !r.StartedAt.Equal(at("2026-08-20T09:05:00.5Z")) || r.Metadata != nil || r.DurationMs != 12 {
			t.Errorf("got %+v, want what was there before, without metadata", r)
		}
	})
}

func TestAnInsertReplacesTheWholeRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("a", "PENDING"), update("a", `"ttl":"10m"`), upToDate)},
			poll{want: "handle=h&live=true&offset=1", handle: "h", offset: "2", body: list(insert("a", "DELAYED"), upToDate)},
		)
		next(t, s)
		runs := next(t, s)
		wants(t, runs, "a DELAYED")
		if runs[0].TTL != "" {
			t.Errorf("got ttl %q, want none", runs[0].TTL)
		}
	})
}

func TestADeletedRunIsNotReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := `{"key":"a","value":{"id":"a"},"headers":{"operation":"delete"}}`
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("a", "PENDING"), insert("b", "PENDING"), gone, upToDate)},
			poll{want: "handle=h&live=true&offset=1", handle: "h", offset: "2", body: list(insert("a", "EXECUTING"), gone, insert("a", "CANCELED"), upToDate)},
		)
		wants(t, next(t, s), "b PENDING")
		wants(t, next(t, s), "a CANCELED")
	})
}

func TestAStreamHoldsNoPayloadAndCanDropFinalRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{DropFinal: true},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(
				insert("a", "COMPLETED_SUCCESSFULLY"), insert("b", "EXECUTING"), update("b", `"payload":"secret"`), upToDate)},
			poll{want: "handle=h&live=true&offset=1", handle: "h", offset: "2", body: list(
				update("a", `"costInCents":"1"`), update("b", `"status":"CANCELED"`), upToDate)},
			poll{want: "handle=h&live=true&offset=2", handle: "h", offset: "3", body: list(
				strings.Replace(insert("b", "CANCELED"), "insert", "update", 1), upToDate)},
		)
		wants(t, next(t, s), "a COMPLETED_SUCCESSFULLY, b EXECUTING")
		if len(s.rows) != 1 || s.rows["b"] == nil {
			t.Errorf("got %d rows, want only the unfinished one", len(s.rows))
		}
		wants(t, next(t, s), "b CANCELED")
		wants(t, next(t, s), "b CANCELED")
		if len(s.rows) != 0 {
			t.Errorf("got %d rows, want none", len(s.rows))
		}
	})
}

func TestResetBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := follow(t, RealtimeFilter{},
			poll{want: "offset=-1", handle: "h", offset: "1", body: list(insert("a", "PENDING"), upToDate)},
			poll{want: "handle=h&live=true&offset=1", handle: "h", offset: "1", body: list(upToDate)},
			poll{want: "offset=-1", handle: "i", offset: "4", body: list(insert("a", "EXECUTING"), upToDate)},
		)
		if !s.MintedAt().IsZero() {
			t.Errorf("minted at %v before the first poll", s.MintedAt())
		}
		next(t, s)
		if got := s.MintedAt(); !got.Equal(time.Now()) {
			t.Errorf("minted at %v, want %v", got, time.Now())
		}
		minted := s.MintedAt()
		next(t, s)
		if got := s.MintedAt(); !got.Equal(minted) {
			t.Errorf("minted at %v after a live poll, want %v as before", got, minted)
		}
		s.Reset()
		if !s.MintedAt().IsZero() {
			t.Errorf("minted at %v after Reset", s.MintedAt())
		}
		wants(t, next(t, s), "a EXECUTING")
	})
}

func TestASnapshotAsksForRunsWithAllTagsAndSkipsPayloads(t *testing.T) {
	var got url.Values
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.Query()
		w.Header().Set("electric-handle", "h")
		w.Header().Set("electric-offset", "0_0")
		answer(http.StatusOK, golden(t, "realtime-snapshot.json"))(w, r)
	})
	runs, err := c.Snapshot(t.Context(), "a", "b:c")
	if err != nil {
		t.Fatal(err)
	}
	wants(t, runs, "run_cmekq3v7x0001a4l8h2df0006 EXECUTING")
	want := url.Values{"offset": {"-1"}, "tags": {"a,b:c"}, "skipColumns": {"payload,payloadType"}}
	if got.Encode() != want.Encode() {
		t.Errorf("asked %s, want %s", got.Encode(), want.Encode())
	}
}

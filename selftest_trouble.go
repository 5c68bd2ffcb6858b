package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// trouble is what goes wrong around the server during a round.
type trouble struct {
	name   string
	faults []map[string]any            // of Trigger.dev
	events eventWay                    // how Trigger.dev's events come
	also   func(context.Context) error // happens in the middle of the round
	// hinders tells that the server's database is away.
	hinders bool
	// answers and lasts are what the round has at least.
	answers int
	lasts   time.Duration
}

// someFail is a fault of half the requests whose path begins so; more are members of it
// and their values.
func someFail(path, kind string, more ...any) map[string]any {
	f := map[string]any{"match": map[string]any{"path": path}, "kind": kind, "probability": 0.5}
	for i := 0; i+1 < len(more); i += 2 {
		f[more[i].(string)] = more[i+1]
	}
	return f
}

// Where requests to Trigger.dev go.
const (
	pathAll      = "/api/"
	pathSubmit   = "/api/v1/tasks/"
	pathRetrieve = "/api/v3/runs/"
	pathCancel   = "/api/v2/runs/"
	pathList     = "/api/v1/runs"
	pathRealtime = "/realtime/"
)

// troubles is the catalogue.
func (w *proving) troubles() []trouble {
	list := []trouble{
		{name: "none"},
		{name: "replies are lost after accept", faults: []map[string]any{someFail(pathSubmit, "dropReply")}},
		{name: "cancels' replies are lost", faults: []map[string]any{someFail(pathCancel, "dropReply")}},
		{name: "everything is 500", faults: []map[string]any{someFail(pathAll, "status", "status", 500, "probability", 1)}},
		{name: "502 and 503 now and then", faults: []map[string]any{
			someFail(pathAll, "status", "status", 502), someFail(pathAll, "status", "status", 503),
		}},
		{name: "rate limited", faults: []map[string]any{someFail(pathAll, "status", "status", 429, "delayMs", 500)}},
		{name: "408", faults: []map[string]any{someFail(pathSubmit, "status", "status", 408)}},
		{name: "hanging", faults: []map[string]any{someFail(pathSubmit, "hang", "probability", 0.2)}},
		{name: "slow", faults: []map[string]any{someFail(pathAll, "delay", "delayMs", 300)}},
		{name: "connections are reset", faults: []map[string]any{someFail(pathAll, "reset")}},
		{name: "garbage", faults: []map[string]any{someFail(pathAll, "garbage")}},
		{name: "truncated replies", faults: []map[string]any{someFail(pathAll, "truncate")}},
		{name: "redirects", faults: []map[string]any{someFail(pathAll, "redirect")}},
		keyRefused(),
		{name: "forbidden", faults: []map[string]any{someFail(pathAll, "status", "status", 403, "probability", 1)}},
		{name: "young runs are not found", faults: []map[string]any{someFail(pathRetrieve, "notFound")}},
		{name: "no run is found", faults: []map[string]any{
			someFail(pathRetrieve, "notFound", "probability", 1), someFail(pathCancel, "notFound", "probability", 1),
		}},
		{name: "lists lag", faults: []map[string]any{someFail(pathList, "staleList", "delayMs", 5000, "probability", 1)}},
		{name: "lists are empty", faults: []map[string]any{someFail(pathList, "emptyList", "probability", 1)}},
		{name: "no realtime", faults: []map[string]any{someFail(pathRealtime, "reset", "probability", 1)}},
		{name: "events are lost", events: eventsLost, answers: 3},
		{name: "events are doubled", events: eventsDoubled, answers: 3},
		{name: "events are late and shuffled", events: eventsLate, answers: 3},
		// Jobs without a run are those that a false event could be taken for.
		{name: "events are forged", events: eventsForged, answers: 5, lasts: 200 * time.Millisecond, faults: []map[string]any{someFail(pathSubmit, "status", "status", 500)}},
		{name: "trigger.dev's clock jumps", also: w.jump, answers: 3},
	}
	for _, h := range w.database.hindrances() {
		list = append(list, trouble{name: h.name, also: w.hinder(h), hinders: true})
	}
	return list
}

func keyRefused() trouble {
	return trouble{name: "the key is refused", faults: []map[string]any{someFail(pathAll, "status", "status", 401, "probability", 1)}}
}

// beforeBackup leaves jobs that were certainly never sent: those are what a restored
// backup makes dangerous.
func beforeBackup() trouble {
	t := keyRefused()
	t.name, t.answers = t.name+", backup", 12
	return t
}

// longTroubles are those that make sidejob back off and stop calling.
func longTroubles() []trouble {
	outage := trouble{name: "nobody answers", faults: []map[string]any{someFail("/", "reset", "probability", 1)}}
	broken := trouble{name: "all is 500", faults: []map[string]any{someFail("/", "status", "status", 500, "probability", 1)}}
	return []trouble{outage, broken, keyRefused()}
}

// nextTrouble deals out the catalogue, shuffled, again and again; now and then comes
// one that lasts. What the database alone can suffer comes first, so that a short test
// has it as well.
func (w *proving) nextTrouble() trouble {
	if w.random.IntN(25) > 0 {
		if len(w.deck) == 0 {
			first := w.deck == nil
			w.deck = w.troubles()
			w.random.Shuffle(len(w.deck), func(i, k int) { w.deck[i], w.deck[k] = w.deck[k], w.deck[i] })
			if first {
				slices.SortStableFunc(w.deck, func(a, b trouble) int { return rank(a.hinders) - rank(b.hinders) })
			}
		}
		t := w.deck[0]
		w.deck = w.deck[1:]
		return t
	}
	list := longTroubles()
	t := list[w.random.IntN(len(list))]
	t.name, t.lasts = t.name+" for long", 2*time.Second+time.Duration(w.random.IntN(2000))*time.Millisecond
	return t
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

// jump moves Trigger.dev's clock ahead by minutes to two hours.
func (w *proving) jump(ctx context.Context) error {
	by := time.Minute + time.Duration(w.random.Int64N(int64(2*time.Hour-time.Minute)))
	_, err := w.ask(ctx, http.MethodPost, "/emulator/advance", fmt.Appendf(nil, `{"ms":%d}`, by.Milliseconds()))
	return err
}

package main

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// weekSeeds are the dice that the week is played with, one number for each.
func weekSeeds() *string {
	return flag.String("week.seed", "1", "seeds of TestAWeekOfTroubles, separated by commas")
}

var weeks = weekSeeds()

// A week in which everything happens: jobs come, are canceled and replaced, the way
// to Trigger.dev fails in every manner, events are lost, doubled, late and forged,
// PostgreSQL goes away, and sidejob is stopped, killed and left off for hours. When the
// troubles are over, every row says what Trigger.dev says and each job has one run; then
// somebody restores an older backup, and still no job gets a second one. The seed gives
// the dice; who throws them first is not in its hands.
func TestAWeekOfTroubles(t *testing.T) {
	tellAtLeisure(t)
	t.Parallel()
	onEachEngine(t, func(t *testing.T, on worldOption) {
		for text := range strings.SplitSeq(*weeks, ",") {
			seed, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatalf("-week.seed: %v", err)
			}
			t.Run("seed "+text, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWeek(t, seed, on)
					w.liveThrough()
					w.clearUp()
					w.wantTruth(w.brief...)
					w.wantPromises()
					w.wantTroubles()
					w.restoreBackup()
				})
			})
		}
	})
}

// week is a scene with bad luck.
type week struct {
	*scene
	*weather
	begun  time.Time
	jobs   []int64 // acknowledged, to be kept
	brief  []int64 // acknowledged, to vanish an hour after their end
	ended  map[int64]seenEnd
	backup string // a copy of the database, made while jobs waited
}

// seenEnd is how a job was seen to end, for good.
type seenEnd struct {
	as string
	at time.Time // seen, not ended
}

func newWeek(t *testing.T, seed uint64, on worldOption) *week {
	w := &week{scene: newScene(t, on, withTasks(sceneTasks()), withWorkers(1)), weather: newWeather(seed), begun: time.Now(), ended: map[int64]seenEnd{}}
	w.out.tapWith(w.disturb)
	w.in.tapWith(w.mislay)
	return w
}

// troubles are what befalls a host and its sidejob in a week, in the order of the
// dice.
func (w *week) troubles() []func() {
	some := func(n int, trouble func()) []func() { return slices.Repeat([]func(){trouble}, n) }
	list := slices.Concat(
		some(4, w.gusts), some(3, w.restart), some(3, w.die), some(2, w.hideYoung), some(2, w.loseRun), some(3, w.loseReplyOfFailure),
		some(3, w.cancelInDoubt), some(3, w.raceCancel), some(2, w.forge), some(2, w.rumour), some(4, w.bringLate),
		[]func(){
			w.outage,
			func() { w.refuseKey("401") },
			func() { w.refuseKey("403") },
			func() { w.spoil("emptyList", fault("GET", listPath, "emptyList")) },
			func() {
				w.spoil("staleList", fault("GET", listPath, "staleList", "delayMs", w.between(time.Minute, time.Hour).Milliseconds()))
			},
			func() { w.spoil("stream 409", fault("", streamPath, "status", "status", http.StatusConflict)) },
			func() { w.spoil("stream reset", fault("", streamPath, "reset")) },
			func() { w.spoil("stream 404", fault("", streamPath, "notFound")) },
		})
	if e, can := w.engine.(postgresDatabases); can {
		list = append(list, some(3, func() { w.loseDatabase(e) })...)
	}
	w.shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// liveThrough deals the troubles out to seven days. At the end of each, sidejob is off
// until midnight.
func (w *week) liveThrough() {
	left := w.troubles()
	for day := range 7 {
		w.blow(0.05)
		today := len(left) / (7 - day)
		for _, trouble := range left[:today] {
			trouble()
			w.cast(nil)
			w.note()
		}
		left = left[today:]
		w.out.forget()
		w.down()
		time.Sleep(time.Until(w.begun.Add(time.Duration(day+1) * 24 * time.Hour)))
		w.up()
	}
}

// live lets time pass while hosts ask for things, so often at least.
func (w *week) live(length, pause time.Duration) {
	for end := time.Now().Add(length); time.Now().Before(end); {
		w.act()
		time.Sleep(w.between(time.Second, pause))
	}
}

// calm lets everybody get their breath back.
func (w *week) calm() {
	w.blow(0)
	time.Sleep(3 * time.Minute)
}

// gusts is weather that changes by the minute.
func (w *week) gusts() {
	for range 6 {
		w.blow(pick(w.weather, 0, 0.1, 0.4, 1))
		w.live(w.between(time.Second, 3*time.Minute), time.Minute)
	}
}

func (w *week) restart() {
	w.count("restart")
	w.down()
	time.Sleep(w.between(time.Minute, 5*time.Hour))
	w.up()
}

func (w *week) die() {
	w.live(w.between(time.Second, time.Minute), 20*time.Second)
	w.count("crash")
	w.kill()
	time.Sleep(w.between(0, 4*time.Hour))
	w.up()
}

// outage is Trigger.dev down for hours while work comes in. A backup is made
// meanwhile, and sidejob may die of it.
func (w *week) outage() {
	w.calm()
	running := w.ask("stays", nil)
	w.soonEnough(running, 5*time.Minute, "it has a run", hasRun)
	kind := pick(w.weather, "refused", "reset", "503")
	w.cast(func(*http.Request) string { return kind })
	w.live(w.between(time.Hour, 90*time.Minute), 8*time.Minute)
	id := w.ask("bad", nil)
	if j, _ := w.cancelJob(running, "?waitMs=1"); j.CancelRequested && !hasEnded(j) {
		w.count("cancel while Trigger.dev is down")
	}
	w.count("outage of hours")
	w.forgeFor(id)
	w.saveBackup()
	if w.roll() < 0.3 {
		w.kill()
		w.up()
	}
	w.live(time.Hour, 8*time.Minute)
	if run := w.get(id).TriggerRunID; run != "" {
		w.t.Errorf("job %d got run %s from a Trigger.dev that was down", id, run)
	}
}

// loseDatabase is PostgreSQL away, for a moment or for minutes in which runs end.
func (w *week) loseDatabase(e postgresDatabases) {
	w.calm()
	ends, stays := w.ask("minute", nil), w.ask("stays", nil)
	w.soonEnough(ends, 50*time.Second, "it has a run", hasRun)
	w.soonEnough(stays, 50*time.Second, "it has a run", hasRun)
	mend := e.cut(w.t, w.cfg.database)
	for _, r := range []answer{
		w.call("GET", "/api/jobs", nil),
		w.call("POST", "/api/jobs", `{"type":"ok"}`),
		w.call("POST", fmt.Sprintf("/api/jobs/%d/cancel", stays), nil),
	} {
		if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
			w.t.Errorf("while the database is away a call is answered %d %s, Retry-After %q", r.status, r.body, r.header.Get("Retry-After"))
		}
	}
	time.Sleep(pick(w.weather, 0, 5*time.Second, w.between(30*time.Second, 5*time.Minute)))
	mend()
	w.count("database away")
	w.insist()
	w.live(w.between(time.Second, time.Minute), 10*time.Second)
	w.soonEnough(ends, 3*time.Minute, "its end is known", hasEnded)
	w.cancelJob(stays, "?waitMs=1")
}

// insist asks again as long as it is told to: a connection that broke is found out by
// who uses it next.
func (w *week) insist() {
	for range 3 {
		r := w.call("POST", "/api/jobs", map[string]any{"type": "ok", "executor": "trigger", "triggerTaskId": "ok", "persistent": true})
		if r.status == http.StatusCreated {
			w.jobs = append(w.jobs, w.view(r).ID)
			time.Sleep(2 * time.Second) // by then all connections are looked at before they are used
			return
		}
		pause, err := strconv.Atoi(r.header.Get("Retry-After"))
		if r.status != http.StatusServiceUnavailable || err != nil {
			w.t.Errorf("once the database is back a call is answered %d %s", r.status, r.body)
		}
		time.Sleep(time.Duration(pause) * time.Second)
	}
	w.t.Error("the database is back, and not for sidejob")
}

func (w *week) saveBackup() {
	synctest.Wait()
	w.backup = w.engine.backup(w.t, w.cfg.database)
}

// refuseKey is a key that does not work for hours.
func (w *week) refuseKey(kind string) {
	w.cast(func(*http.Request) string { return kind })
	w.live(w.between(time.Hour, 90*time.Minute), 10*time.Minute)
	w.count(kind + " for hours")
}

// spoil has the emulator misbehave for a while, in gusts and through a crash.
func (w *week) spoil(name string, f map[string]any) {
	w.calm()
	w.faults(f)
	w.sweepReport("reconcile")
	w.live(10*time.Minute, 2*time.Minute)
	w.kill()
	w.up()
	w.blow(0.2)
	w.live(w.between(10*time.Minute, 30*time.Minute), 3*time.Minute)
	var set struct{ Faults []struct{ Hits int } }
	callHandler(w.t, w.emu, "GET", "/emulator/faults", nil).into(w.t, &set)
	w.countBy(name, set.Faults[0].Hits)
	w.faults()
	w.calm()
}

// hideYoung is a Trigger.dev whose runs can be retrieved only after some minutes.
func (w *week) hideYoung() {
	w.calm()
	w.cast(w.hidesYoung(w.between(time.Minute, 8*time.Minute)))
	w.live(20*time.Minute, 2*time.Minute)
}

// loseRun is a run that Trigger.dev knows no more, and later knows again: it is given
// up after three 404s over ten minutes, and taken back.
func (w *week) loseRun() {
	w.calm()
	id := w.ask(pick(w.weather, "stays", "half-hour"), nil)
	lost := w.soonEnough(id, 5*time.Minute, "it has a run", hasRun)
	w.hide(lost.TriggerRunID)
	since := time.Now()
	w.soonEnough(id, time.Hour, "its lost run is given up", isOrphan)
	if n, age := w.misses(lost.TriggerRunID), time.Since(since); n < 3 || age < 10*time.Minute {
		w.t.Errorf("job %d was given up after %d times 404 in %s", id, n, age)
	}
	w.count("run lost")
	w.live(w.between(time.Minute, time.Hour), 10*time.Minute)
	w.hide("")
	w.calm()
	w.sweepReport("reconcile")
	w.soonEnough(id, 10*time.Minute, "its run is found again", func(j seenJob) bool { return !isOrphan(j) })
	w.cancelJob(id, "?waitMs=1")
}

func isOrphan(j seenJob) bool { return strings.Contains(string(j.Result), `"reason":"ORPHANED"`) }

// loseReplyOfFailure is a submit that arrives, unknown to sidejob, and a run that has
// failed and freed its key before anybody can ask.
func (w *week) loseReplyOfFailure() {
	w.loseReplies()
	id := w.ask(pick(w.weather, "bad", "crashes"), nil)
	time.Sleep(w.between(5*time.Second, time.Minute))
	for _, run := range w.truth() {
		if slices.Contains(run.Tags, fmt.Sprint(rowTagPrefix, id)) && tableStatus(run.Status) == "FAILED" && !hasRun(w.get(id)) {
			w.count("key freed before the reply was known")
		}
	}
	w.dieOrNot()
	w.live(w.between(time.Second, 5*time.Minute), time.Minute)
	w.in.cut(nil)
}

// loseReplies lets submits arrive and no word come back, on no way.
func (w *week) loseReplies() {
	w.calm()
	w.loseNews()
	w.cast(losesSubmits)
}

// loseNews lets nothing be heard of runs but what is asked.
func (w *week) loseNews() {
	w.in.cut(errNoRoute)
	w.cast(cutsStream)
	time.Sleep(time.Minute) // until the poll under way is over
}

// cancelInDoubt cancels a job of which nobody knows whether it has a run.
func (w *week) cancelInDoubt() {
	w.loseReplies()
	id := w.ask(pick(w.weather, "ok", "half-hour", "stays", "bad"), nil)
	time.Sleep(w.between(time.Second, 10*time.Second))
	w.cancelJob(id, "?waitMs=1")
	if slices.Contains(w.history(id), "cancel api > sending canceling") {
		w.count("cancel of a submit in doubt")
	}
	w.dieOrNot()
	w.in.cut(nil)
}

func (w *week) dieOrNot() {
	switch n := w.roll(); {
	case n < 0.3:
		w.restart()
	case n < 0.6:
		w.die()
	}
}

// raceCancel cancels jobs about when they end, and one that has ended unheard.
func (w *week) raceCancel() {
	w.calm()
	for range 12 {
		id := w.ask("ok", nil)
		time.Sleep(w.between(400*time.Millisecond, 600*time.Millisecond))
		w.cancelJob(id, "?waitMs=1")
	}
	w.loseNews()
	id := w.ask("ok", nil)
	time.Sleep(time.Second)
	w.cancelJob(id, "?waitMs=1")
	w.in.cut(nil)
}

// forge brings an event that nobody signed, and one with a good signature that
// claims another job for a run that there is not.
func (w *week) forge() { w.forgeFor(pick(w.weather, w.recent()...)) }

func (w *week) forgeFor(victim int64) {
	body := runEventBody(fmt.Sprintf("run_forged%d", time.Now().UnixNano()), victim, "RUN_COMPLETED", "COMPLETED")
	r := w.call("POST", webhookPath, body, "trigger-signature", strings.Repeat("0", 64))
	if r.status != http.StatusUnauthorized {
		w.t.Errorf("an event with a wrong signature is answered %d %s", r.status, r.body)
	}
	w.count("forged signature")
	r = w.call("POST", webhookPath, body, "trigger-signature", bareSignature(body))
	if r.status != http.StatusOK || !strings.Contains(string(r.body), `"matched":false`) {
		w.t.Errorf("an event of a run that there is not is answered %d %s", r.status, r.body)
	}
	w.count("forged run")
}

// rumour brings a signed event that is not true of a run that goes on and ends well.
func (w *week) rumour() {
	w.calm()
	id := w.ask("minute", nil)
	run := w.soonEnough(id, 50*time.Second, "it has a run", hasRun).TriggerRunID
	body := runEventBody(run, id, "RUN_FAILED", "CRASHED")
	if r := w.call("POST", webhookPath, body, "trigger-signature", bareSignature(body)); r.status != http.StatusOK {
		w.t.Errorf("a rumour is answered %d %s", r.status, r.body)
	}
	if slices.Contains(w.history(id), "told webhook > told failed") {
		w.count("rumour")
	}
}

func (w *week) act() {
	switch n := w.roll(); {
	case n < 0.5:
		w.askAny()
	case n < 0.6:
		w.brief = append(w.brief, w.place(map[string]any{"triggerTaskId": pick(w.weather, "ok", "bad"), "removeDelay": time.Hour.Milliseconds()}))
	case n < 0.85:
		w.cancelAny()
	case n < 0.95:
		w.bringLate()
	default:
		id := pick(w.weather, w.recent()...)
		if r := w.call("POST", fmt.Sprintf("/api/jobs/%d/retry?waitMs=1", id), nil); r.status == http.StatusCreated {
			w.jobs = append(w.jobs, w.view(r).ID)
		}
	}
}

func (w *week) recent() []int64 {
	if len(w.jobs) == 0 {
		w.ask("ok", nil)
	}
	return w.jobs[max(0, len(w.jobs)-20):]
}

func (w *week) cancelAny() {
	if j, _ := w.cancelJob(pick(w.weather, w.recent()...), "?waitMs=1"); j.CancelRequested {
		w.count("cancel")
	}
}

// askAny schedules a job of some kind; now and then it takes another's tag.
func (w *week) askAny() {
	request := map[string]any{}
	if w.roll() < 0.4 {
		request["tag"], request["onConflict"] = pick(w.weather, "red", "blue"), pick(w.weather, "replace", "replaceAll", "keep")
	}
	if w.roll() < 0.3 {
		request["due"] = time.Now().Add(w.between(time.Second, time.Hour))
	}
	if w.roll() < 0.2 {
		request["autoRescheduleOnFailure"], request["retryConfig"] = true, map[string]any{"maxAttempts": 4}
	}
	w.ask(pick(w.weather, "ok", "ok", "bad", "flaky", "crashes", "minute", "half-hour", "stays", "queues"), request)
}

// ask schedules a job that is to be kept: long, or by being persistent.
func (w *week) ask(task string, request map[string]any) int64 {
	whole := map[string]any{"triggerTaskId": task, "removeDelay": (30 * 24 * time.Hour).Milliseconds()}
	if w.roll() < 0.3 {
		whole["removeDelay"], whole["persistent"] = 1, true
	}
	maps.Copy(whole, request)
	id := w.place(whole)
	if !slices.Contains(w.jobs, id) {
		w.jobs = append(w.jobs, id)
	}
	return id
}

func (w *week) place(request map[string]any) int64 {
	request["type"], request["executor"], request["data"] = request["triggerTaskId"], "trigger", map[string]any{"text": weekPayload}
	r := w.call("POST", "/api/jobs?waitMs=1", request)
	if r.status != http.StatusCreated && r.status != http.StatusOK { // OK: another one is kept
		w.t.Fatalf("schedule is answered %d %s", r.status, r.body)
	}
	return w.view(r).ID
}

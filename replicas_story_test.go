package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestThreeReplicasThroughADeathAFreezeAndARestart has an app use three sidejobs on one
// database. The one that leads is killed; the one that leads then is frozen for two
// lives of a leader; meanwhile PostgreSQL is restarted. Nothing is lost, nothing done
// twice, and nobody is answered unclearly.
func TestThreeReplicasThroughADeathAFreezeAndARestart(t *testing.T) {
	tellAtLeisure(t)
	t.Parallel()
	a := newReplicatedApp(newReplicas(t, 3), 5000, 2000)
	a.begin(50 * time.Second)

	first, term := a.leader(0, 10*time.Second)
	pause(t.Context(), 5*time.Second)
	first.excused.Store(true)
	died := time.Now()
	first.kill()
	second, term := a.leader(term, 15*time.Second)
	t.Logf("%s has taken over from %s, which was killed, after %s", second.name, first.name, time.Since(died).Round(10*time.Millisecond))
	pause(t.Context(), 3*time.Second)

	second.excused.Store(true)
	froze := time.Now()
	a.signal(second, syscall.SIGSTOP)
	third, _ := a.leader(term, 15*time.Second)
	t.Logf("%s has taken over from %s, which was frozen, after %s", third.name, second.name, time.Since(froze).Round(10*time.Millisecond))
	a.restartDatabase(2 * time.Second)
	back := time.Now()
	a.awaitReady(third, 10*time.Second)
	t.Logf("%s is ready %s after PostgreSQL came back", third.name, time.Since(back).Round(10*time.Millisecond))
	pause(t.Context(), time.Until(froze.Add(2*leadLife)))
	a.signal(second, syscall.SIGCONT)
	second.excused.Store(false)
	a.wantToLeadNoMore(second)

	a.settle(time.Minute)
	a.wantOneLeaderATerm()
	a.wantNothingLost()
	a.wantDoneOnce()
	a.wantOneRunEach()
	a.wantToLeaveInPeace(second, third)
	a.answered.Range(func(what, count any) bool {
		t.Logf("%d answers: %s", count.(*atomic.Int64).Load(), what)
		return true
	})
}

// replicatedApp schedules jobs and works on them, and remembers what it was told.
type replicatedApp struct {
	*replicas
	works, runs int // jobs of each executor
	working     sync.WaitGroup
	rest        context.CancelFunc
	hosts       sync.WaitGroup

	mu    sync.Mutex
	acked map[string]int64   // ids, by tag
	done  map[int64][]string // who was told that his work is taken
	maybe map[int64][]string // who was told nothing, and then that it is taken no more
}

func newReplicatedApp(r *replicas, works, runs int) *replicatedApp {
	return &replicatedApp{replicas: r, works: works, runs: runs,
		acked: map[string]int64{}, done: map[int64][]string{}, maybe: map[int64][]string{}}
}

// begin lets hosts schedule all jobs over that time, and workers work on them.
func (a *replicatedApp) begin(over time.Duration) {
	ctx, rest := context.WithCancel(a.Context())
	a.rest = rest
	a.Cleanup(func() { rest(); a.hosts.Wait(); a.working.Wait() })
	orders := append(split("internal", a.works), split("trigger", a.runs)...)
	rand.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
	const hosts = 6
	begun := time.Now()
	for n := range hosts {
		a.hosts.Go(func() {
			for i := n; i < len(orders); i += hosts {
				pause(ctx, time.Until(begun.Add(over*time.Duration(i)/time.Duration(len(orders)))))
				a.schedule(ctx, orders[i], fmt.Sprint("order-", i))
			}
		})
	}
	for n := range 6 {
		a.working.Go(func() { a.work(ctx, fmt.Sprint("worker-", n)) })
	}
}

// split makes tags for that many jobs, most of them by twenty, the others alone.
func split(executor string, jobs int) (orders [][]string) {
	for n := 0; n < jobs; {
		size := 1
		if n < jobs*4/5 {
			size = min(20, jobs-n)
		}
		var tags []string
		for range size {
			tags = append(tags, fmt.Sprint(executor, "-", n))
			n++
		}
		orders = append(orders, tags)
	}
	return orders
}

// schedule places the jobs of those tags, whatever it takes.
func (a *replicatedApp) schedule(ctx context.Context, tags []string, key string) {
	var jobs []string
	for _, tag := range tags {
		if strings.HasPrefix(tag, "trigger") {
			jobs = append(jobs, fmt.Sprintf(`{"type":"work","tag":%q,"persistent":true,"executor":"trigger","triggerTaskId":"work"}`, tag))
		} else {
			jobs = append(jobs, fmt.Sprintf(`{"type":"work","tag":%q,"persistent":true}`, tag))
		}
	}
	if len(jobs) == 1 {
		status, answer := a.insist(ctx, "/api/jobs", jobs[0], key)
		var j seenJob
		if err := json.Unmarshal(answer, &j); ctx.Err() == nil && (status != http.StatusCreated || err != nil) {
			a.Errorf("schedule %v: %d %s", tags, status, answer)
			return
		}
		a.acknowledged(tags[0], j.ID)
		return
	}
	status, answer := a.insist(ctx, "/api/jobs/batch", `{"jobs":[`+strings.Join(jobs, ",")+`]}`, key)
	var got batchAnswer
	if err := json.Unmarshal(answer, &got); ctx.Err() == nil && (status != http.StatusOK || err != nil || len(got.Results) != len(tags)) {
		a.Errorf("schedule %v: %d %s", tags, status, answer)
		return
	}
	for n, r := range got.Results {
		if r.Job == nil {
			a.Errorf("schedule %s: %+v", tags[n], r.Problem)
			continue
		}
		a.acknowledged(tags[n], r.Job.ID)
	}
}

func (a *replicatedApp) acknowledged(tag string, id int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acked[tag] = id
}

// shortLease is how long a worker has a job without a heartbeat.
const shortLease = 2 * time.Second

// work claims jobs and carries them out, until ctx ends.
func (a *replicatedApp) work(ctx context.Context, worker string) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	for n := 0; ctx.Err() == nil; n++ {
		status, answer := a.post(ctx, "/api/worker/claim", fmt.Sprintf(`{"worker":%q,"limit":5,"leaseMs":%d,"waitMs":500}`, worker, shortLease.Milliseconds()), "")
		var got struct{ Jobs []takenJob }
		if status != http.StatusOK || json.Unmarshal(answer, &got) != nil {
			pause(ctx, 100*time.Millisecond)
			continue
		}
		for _, j := range got.Jobs {
			jobs.Go(func() { a.carryOut(ctx, j, fmt.Sprint(worker, " ", n)) })
		}
		jobs.Wait()
	}
}

// carryOut does a job; one in fifty takes longer than a lease. Each time a job is done
// has a result of its own.
func (a *replicatedApp) carryOut(ctx context.Context, j takenJob, by string) {
	if rand.IntN(50) == 0 && !a.toil(ctx, j) {
		return
	}
	sure := true
	for ctx.Err() == nil {
		status, answer := a.post(ctx, fmt.Sprintf("/api/jobs/%d/complete", j.ID), withToken(j.LeaseToken, fmt.Sprintf(`"result":%q`, by)), "")
		switch status {
		case http.StatusOK:
			a.note(a.done, j.ID, by)
			return
		case http.StatusConflict:
			if !sure {
				a.note(a.maybe, j.ID, by)
			}
			return
		case 0, http.StatusServiceUnavailable:
			sure = false
			pause(ctx, 100*time.Millisecond)
		default:
			a.Errorf("complete job %d: %d %s", j.ID, status, answer)
			return
		}
	}
}

// toil works for one and a half leases, and tells whether the job is still its own.
func (a *replicatedApp) toil(ctx context.Context, j takenJob) bool {
	for range 5 {
		pause(ctx, 3*shortLease/10)
		status, _ := a.post(ctx, fmt.Sprintf("/api/jobs/%d/heartbeat", j.ID), withToken(j.LeaseToken), "")
		if status == http.StatusConflict {
			return false
		}
	}
	return ctx.Err() == nil
}

func (a *replicatedApp) note(in map[int64][]string, id int64, by string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in[id] = append(in[id], by)
}

// awaitReady waits until a replica says that it is well.
func (a *replicatedApp) awaitReady(i *replica, within time.Duration) {
	a.Helper()
	for end := time.Now().Add(within); ; pause(a.Context(), 50*time.Millisecond) {
		res, err := a.client.Get(i.base + "/readyz")
		if err == nil {
			_ = res.Body.Close()
		}
		if err == nil && res.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			a.Fatalf("%s is not ready within %s: %v", i.name, within, err)
		}
	}
}

// wantToLeadNoMore checks that a leader that was frozen learns that its term is over.
func (a *replicatedApp) wantToLeadNoMore(i *replica) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), 15*time.Second)
	defer cancel()
	if _, err := i.err.waitFor(ctx, `"msg":"not leading any more"`); err != nil {
		a.Errorf("%s: %v", i.name, err)
	}
	refused := strings.Count(i.err.text(), ErrNotLeading.Error())
	a.Logf("%s leads no more; %d lines of its log tell of refused writes", i.name, refused)
}

// settle waits until every job is scheduled and has ended.
func (a *replicatedApp) settle(within time.Duration) {
	a.Helper()
	a.hosts.Wait()
	begun := time.Now()
	for {
		var open int
		err := a.db.QueryRow("SELECT count(*) FROM worker_jobs WHERE type = 'work' AND finished IS NULL").Scan(&open)
		if err == nil && open == 0 {
			break
		}
		if time.Since(begun) > within {
			a.Errorf("%s after the last job was scheduled %d are open (%v)", within, open, err)
			a.tellOfOpen()
			break
		}
		pause(a.Context(), 100*time.Millisecond)
	}
	a.Logf("all jobs have ended %s after the last was scheduled", time.Since(begun).Round(10*time.Millisecond))
	pause(a.Context(), 2*shortLease) // who works on one a second time has reported by then
	a.rest()
	a.working.Wait()
}

// tellOfOpen shows some jobs that do not end, and what has happened to them.
func (a *replicatedApp) tellOfOpen() {
	a.Helper()
	found, err := a.db.Query(`SELECT row_to_json(j)::text, (SELECT json_agg(e ORDER BY e.id)::text FROM job_events e WHERE e.job_id = j.id)
		FROM worker_jobs j WHERE type = 'work' AND finished IS NULL LIMIT 3`)
	if err != nil {
		a.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		var row, history string
		if err := found.Scan(&row, &history); err != nil {
			a.Fatal(err)
		}
		a.Logf("%s\n%s", row, history)
	}
}

// ranJob is a row as the database has it at the end.
type ranJob struct {
	id               int64
	tag, run, result string
	success          bool
}

func (a *replicatedApp) rows() (rows []ranJob) {
	a.Helper()
	found, err := a.db.Query(`SELECT id, tag, COALESCE(trigger_run_id, ''), COALESCE(result::text, ''), COALESCE(success, false)
		FROM worker_jobs WHERE type = 'work' ORDER BY id`)
	if err != nil {
		a.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		var j ranJob
		if err := found.Scan(&j.id, &j.tag, &j.run, &j.result, &j.success); err != nil {
			a.Fatal(err)
		}
		rows = append(rows, j)
	}
	return rows
}

// wantNothingLost checks that each job that was acknowledged has one row, and no job
// two.
func (a *replicatedApp) wantNothingLost() {
	a.Helper()
	rows := a.rows()
	if want := a.works + a.runs; len(rows) != want || len(a.acked) != want {
		a.Errorf("%d jobs were acknowledged and there are %d rows, want %d", len(a.acked), len(rows), want)
	}
	seen := map[string]int{}
	for _, j := range rows {
		if seen[j.tag]++; seen[j.tag] > 1 {
			a.Errorf("%s has %d rows", j.tag, seen[j.tag])
		}
		if a.acked[j.tag] != j.id && seen[j.tag] == 1 {
			a.Errorf("%s was acknowledged as job %d, its row is %d", j.tag, a.acked[j.tag], j.id)
		}
		if !j.success {
			a.Errorf("job %d, %s, has not succeeded: %s", j.id, j.tag, j.result)
		}
	}
}

// wantDoneOnce checks that of each internal job one worker was told that its work was
// taken, and that the row has that work's result. Where the database was lost at the
// commit the worker was told nothing; its result is the one of the row then.
func (a *replicatedApp) wantDoneOnce() {
	a.Helper()
	unsure := 0
	for _, j := range a.rows() {
		if !strings.HasPrefix(j.tag, "internal") {
			continue
		}
		by := strings.Trim(j.result, `"`)
		switch done := a.done[j.id]; {
		case len(done) == 1 && done[0] == by:
		case len(done) == 0 && slices.Contains(a.maybe[j.id], by):
			unsure++
		default:
			a.Errorf("job %d has the result %s; it was taken from %q, and perhaps from %q", j.id, j.result, done, a.maybe[j.id])
		}
	}
	a.Logf("%d of %d completions were taken without an answer", unsure, a.works)
}

// wantOneRunEach compares the rows with the runs that Trigger.dev has.
func (a *replicatedApp) wantOneRunEach() {
	a.Helper()
	there := hostApp{base: a.trigger, client: a.client}
	status, answer, err := there.do("GET", "/emulator/runs?values=false", "")
	if err != nil || status != http.StatusOK {
		a.Fatalf("ask for the runs: %d %s, error %v", status, answer, err)
	}
	var body struct {
		Runs []struct {
			ID, Status string
			Tags       []string
			Asked      int
		}
	}
	if err := json.Unmarshal(answer, &body); err != nil {
		a.Fatal(err)
	}
	runs, again := map[string]string{}, 0
	for _, run := range body.Runs {
		at := slices.IndexFunc(run.Tags, func(tag string) bool { return strings.HasPrefix(tag, "trigger-") })
		if run.Status != "COMPLETED" || at < 0 {
			a.Errorf("run %+v has not completed", run)
			continue
		}
		tag := run.Tags[at]
		if other, doubled := runs[tag]; doubled {
			a.Errorf("%s has the runs %s and %s", tag, other, run.ID)
		}
		runs[tag] = run.ID
		again += run.Asked - 1
	}
	if len(runs) != a.runs {
		a.Errorf("there are %d runs, want %d", len(runs), a.runs)
	}
	for _, j := range a.rows() {
		if strings.HasPrefix(j.tag, "trigger") && (j.run == "" || runs[j.tag] != j.run) {
			a.Errorf("%s has run %q, Trigger.dev has %q", j.tag, j.run, runs[j.tag])
		}
	}
	a.Logf("%d submits were sent again", again)
}

// wantToLeaveInPeace ends the replicas.
func (a *replicatedApp) wantToLeaveInPeace(all ...*replica) {
	a.Helper()
	for _, i := range all {
		a.signal(i, syscall.SIGTERM)
		if code := i.exit(20 * time.Second); code != 0 {
			a.Errorf("%s leaves with exit code %d", i.name, code)
		}
	}
}

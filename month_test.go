package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sidejob/internal/job"
)

// A month of recurring jobs in two halves, so that each zone puts its clocks forward
// in one and back in the other. Meanwhile sidejob is restarted, killed and left off,
// from no time at all to two days, in the midst of work too. In the end the oracle
// says of every nominal time, by when sidejob was up, whether it fired.
func TestAMonthOfRecurringJobs(t *testing.T) {
	tellAtLeisure(t)
	t.Parallel()
	onEachEngine(t, func(t *testing.T, on worldOption) {
		for name, begins := range map[string]string{"spring": "2001-03-20T00:00:07.25Z", "autumn": "2001-10-20T00:00:07.25Z"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(time.Until(instantOf(t, begins)))
					m := newMonth(t, on)
					m.liveThrough()
					m.wantEveryNominalTime()
					m.wantClockChanges(name)
					m.wantEachDoneOnce()
					m.wantTroubles()
				})
			})
		}
	})
}

// month is a scene with recurring jobs, and a worker of the host in each life.
type month struct {
	*scene
	recurring []*ticking
	stretches []stretch // when sidejob was up
	life      *life

	mu   sync.Mutex
	done map[string]int // outcomes that were taken, by tag and nominal time
	met  map[string]int // what has happened so far
}

// ticking is a recurring job as it was asked for.
type ticking struct {
	tag, cron, zone string
	misfire         job.Misfire
	limit           int  // of misfire all
	locally         bool // as a plain run of Trigger.dev
	task            string
	from, until     time.Time // until another took its tag; else zero
	pauses          []stretch
	id              int64
}

// stretch is a length of time; from is in it, to is not.
type stretch struct {
	from, to time.Time
	drained  bool // it ended in good order
}

// life is one server's, and its worker's.
type life struct {
	month   *month
	handler http.Handler
	over    atomic.Bool // it was killed: what it does is seen by nobody
	working sync.WaitGroup
}

const (
	halfMonth = 15*24*time.Hour + 8*time.Minute + 27*time.Second
	// Neither of these ends anything on a full second, when nominal times are.
	workTakes = 1250 * time.Millisecond
	workLease = 20_300 * time.Millisecond
	atOdds    = 713 * time.Millisecond
)

func newMonth(t *testing.T, on worldOption) *month {
	m := &month{done: map[string]int{}, met: map[string]int{}}
	m.scene = setScene(t, &scene{out: &wire{mute: true}, in: &wire{}}, []worldOption{on, withTasks(sceneTasks()), func(w *world) { w.assembled = restful }})
	for i, zone := range []string{"America/New_York", "Europe/Berlin", "Australia/Lord_Howe"} {
		for k, misfire := range []job.Misfire{job.FireOnce, job.FireSkip, job.FireAll} {
			for _, cron := range []string{"15 2 * * *", "45 1 * * *", "10 */6 * * *", "30 23 L * *", "0 9 * * 1"} {
				m.ask(&ticking{cron: cron, zone: zone, misfire: misfire, limit: 5})
			}
			m.ask(&ticking{cron: "15 2 * * *", zone: zone, misfire: misfire, limit: 5, locally: true, task: "ok"})
			if i != k {
				continue
			}
			for _, cron := range []string{"*/15 0-3 * * *", "0 * * * *", "*/30 0-9 1,2 * * 0"} {
				m.ask(&ticking{cron: cron, zone: zone, misfire: misfire})
			}
			m.ask(&ticking{cron: "40 */4 * * *", zone: zone, misfire: misfire, limit: 5, locally: true, task: "bad"})
		}
	}
	m.begin()
	return m
}

// ask schedules a job whose rows stay.
func (m *month) ask(j *ticking) {
	m.t.Helper()
	if j.misfire != job.FireAll {
		j.limit = 0
	}
	if j.tag == "" {
		j.tag = fmt.Sprintf("%s %s %s %t", j.cron, j.zone, j.misfire, j.locally)
	}
	request := map[string]any{"type": "work", "tag": j.tag, "cronSchedule": j.cron, "timezone": j.zone, "misfire": j.misfire, "persistent": true}
	if j.limit != 0 {
		request["misfireLimit"] = j.limit
	}
	if j.locally {
		maps.Copy(request, map[string]any{"executor": "trigger", "triggerTaskId": j.task, "fireLocally": true})
	}
	j.from = time.Now()
	j.id = m.schedule(request).ID
	m.recurring = append(m.recurring, j)
}

// begin notes that sidejob is up, and lets the host's worker find it.
func (m *month) begin() {
	m.stretches = append(m.stretches, stretch{from: time.Now()})
	m.life = &life{month: m, handler: m.srv.private}
	m.life.working.Go(m.life.work)
}

// work claims until the server drains.
func (l *life) work() {
	for {
		r := callHandler(l.month.t, l.handler, "POST", "/api/worker/claim", `{"worker":"host","waitMs":60000,"limit":200,"leaseMs":20300}`)
		if r.status != http.StatusOK {
			return
		}
		var got struct{ Jobs []takenJob }
		r.into(l.month.t, &got)
		for _, j := range got.Jobs {
			l.working.Go(func() { l.carryOut(j) })
		}
	}
}

// carryOut does one job as its manner is.
func (l *life) carryOut(j takenJob) {
	does := mannerOf(j.Tag, j.Due, j.Attempt)
	if does == "vanish" {
		return
	}
	time.Sleep(workTakes)
	r := callHandler(l.month.t, l.handler, "POST", fmt.Sprintf("/api/jobs/%d/%s", j.ID, does), withToken(j.LeaseToken))
	switch {
	case l.over.Load():
	case r.status != http.StatusOK:
		l.month.t.Errorf("%s job %d (%s, due %s): %d %s", does, j.ID, j.Tag, j.Due, r.status, r.body)
	default:
		l.month.mu.Lock()
		l.month.done[j.Tag+" "+j.Due.String()]++
		l.month.mu.Unlock()
	}
}

// mannerOf is what a worker does with an occurrence: complete, fail or vanish. It
// never vanishes twice.
func mannerOf(tag string, due time.Time, attempt int) string {
	h := fnv.New32a()
	fmt.Fprint(h, tag, due.Unix())
	switch n := h.Sum32() % 100; {
	case n < 5 && attempt == 1:
		return "vanish"
	case n < 20:
		return "fail"
	}
	return "complete"
}

// liveThrough leaves sidejob off for the one time and the other. The clocks change
// on the fifth, the eighth and the twelfth day.
func (m *month) liveThrough() {
	begun := time.Now().Truncate(time.Hour)
	tick := func(day, quarter int) time.Time { // just after a nominal time
		return begun.Add(time.Duration(day*96+quarter)*15*time.Minute + atOdds)
	}
	paused := []*ticking{m.named("10 */6 * * *", job.FireOnce), m.named("10 */6 * * *", job.FireSkip), m.named("10 */6 * * *", job.FireAll), m.named("40 */4 * * *", job.FireOnce)}
	m.restart(tick(0, 20), 0)
	m.crash(tick(0, 60), 0)
	m.crash(tick(1, 8).Add(-10*time.Second), 45*time.Second)
	m.restart(tick(1, 48), 3*time.Minute)
	m.crash(tick(2, 4), 26*time.Minute)
	m.hold(tick(2, 33), 7*time.Hour, paused...)
	m.restart(tick(3, 17), 2*time.Hour+40*time.Minute)
	m.crash(tick(3, 72).Add(-5*time.Second), 63*time.Second)
	m.replace(tick(4, 10), m.named("0 * * * *", job.FireSkip), "20 */3 * * *")
	m.restart(tick(4, 56), 3*time.Hour)                                               // Lord Howe
	m.replace(tick(5, 28), m.named("*/15 0-3 * * *", job.FireOnce), "*/20 0-3 * * *") // at work
	m.crash(tick(5, 92).Add(-5*time.Second), 66*time.Second)
	m.hold(tick(6, 4), 30*time.Hour, paused...)
	m.crash(tick(8, 40), 48*time.Hour)
	m.restart(tick(11, 3), 11*time.Hour)
	m.crash(tick(11, 80), 0)
	m.crash(tick(12, 31), 26*time.Minute) // New York in spring, soon after
	m.restart(tick(13, 2), 50*time.Second)
	m.crash(tick(13, 50), 9*time.Hour)
	time.Sleep(time.Until(begun.Add(halfMonth)))
	synctest.Wait()
	m.stretches[len(m.stretches)-1].to = time.Now()
}

func (m *month) named(cron string, misfire job.Misfire) *ticking {
	return m.recurring[slices.IndexFunc(m.recurring, func(j *ticking) bool { return j.cron == cron && j.misfire == misfire })]
}

func (m *month) restart(at time.Time, off time.Duration) {
	m.t.Helper()
	time.Sleep(time.Until(at))
	m.endStretch(true)
	m.down()
	m.life.working.Wait()
	time.Sleep(time.Until(at.Add(off)))
	m.up()
	m.begin()
}

func (m *month) crash(at time.Time, off time.Duration) {
	m.t.Helper()
	time.Sleep(time.Until(at))
	m.endStretch(false)
	m.life.over.Store(true)
	m.kill()
	m.life.working.Wait()
	time.Sleep(time.Until(at.Add(off)))
	m.up()
	m.begin()
}

func (m *month) endStretch(drained bool) {
	last := &m.stretches[len(m.stretches)-1]
	last.to, last.drained = time.Now(), drained
}

// hold pauses jobs for a while.
func (m *month) hold(at time.Time, length time.Duration, jobs ...*ticking) {
	m.t.Helper()
	time.Sleep(time.Until(at))
	for _, j := range jobs {
		m.tell(j.id, "pause")
		j.pauses = append(j.pauses, stretch{from: time.Now(), to: at.Add(length)})
	}
	time.Sleep(length)
	for _, j := range jobs {
		m.tell(j.id, "resume")
	}
}

func (m *month) tell(id int64, what string) {
	m.t.Helper()
	if r := m.act(id, what); r.status != http.StatusOK {
		m.t.Fatalf("%s job %d: %d %s", what, id, r.status, r.body)
	}
}

// replace gives a job's tag to another.
func (m *month) replace(at time.Time, j *ticking, cron string) {
	m.t.Helper()
	time.Sleep(time.Until(at))
	j.until = time.Now()
	m.ask(&ticking{tag: j.tag, cron: cron, zone: j.zone, misfire: j.misfire, limit: j.limit, locally: j.locally, task: j.task})
}

// restful spares a server the looks, every few seconds, at rows that nobody has
// written since the last one, and connections made anew for every nominal time. They are
// what a simulated month would be spent on.
func restful(s *server) {
	if db, is := s.store.(*sqlStore); is && !db.Alone() {
		db.db.SetConnMaxIdleTime(24 * time.Hour)
	}
	s.clockwork.store = &restfulStore{Store: s.store, changed: s.watchAll()}
	s.outbox.store = &restfulStore{Store: s.store, changed: s.watchAll()}
	s.workers.desk.store = &restfulStore{Store: s.store, changed: s.watchAll()}
	terms := &restfulTerms{Store: s.store}
	s.leadership.store, s.store = terms, terms
}

func (s *server) watchAll() <-chan struct{} {
	changed, _ := s.store.Watch(everyJob) // it ends with the store
	return changed
}

// restfulStore is one room's view of the store.
type restfulStore struct {
	Store
	changed <-chan struct{}

	mu    sync.Mutex
	known bool // that nothing is to be done before next
	next  time.Time
}

// rests tells whether nothing can be new, and until when.
func (r *restfulStore) rests(at time.Time) (next time.Time, rests bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.changed:
		r.known = false
	default:
	}
	r.known = r.known && (r.next.IsZero() || at.Before(r.next))
	return r.next, r.known
}

// learn is told what was read after rests had been asked.
func (r *restfulStore) learn(nothing bool, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.next = nothing, next
}

// Ripe implements Store.
func (r *restfulStore) Ripe(ctx context.Context, at time.Time, limit int) ([]RipeRow, time.Time, error) {
	if next, rests := r.rests(at); rests {
		return nil, next, nil
	}
	ripe, next, err := r.Store.Ripe(ctx, at, limit)
	r.learn(err == nil && len(ripe) == 0, next)
	return ripe, next, err
}

// Owed implements Store.
func (r *restfulStore) Owed(ctx context.Context, at time.Time, limit int) ([]int64, time.Time, error) {
	if next, rests := r.rests(at); rests {
		return nil, next, nil
	}
	ids, next, err := r.Store.Owed(ctx, at, limit)
	r.learn(err == nil && len(ids) == 0, next)
	return ids, next, err
}

// Claim implements Store.
func (r *restfulStore) Claim(ctx context.Context, c Claim) ([]job.Job, error) {
	if _, rests := r.rests(c.At); rests {
		return nil, nil
	}
	return r.Store.Claim(ctx, c)
}

// NextClaimable implements Store. It is asked when a claim has found nothing; what
// has changed since is for the next claim to see.
func (r *restfulStore) NextClaimable(ctx context.Context, c Claim) (time.Time, error) {
	r.mu.Lock()
	next, known := r.next, r.known
	r.mu.Unlock()
	if known {
		return next, nil
	}
	next, err := r.Store.NextClaimable(ctx, c)
	r.learn(err == nil, next)
	return next, err
}

// restfulTerms is the view of who leads and of who says that it lives. Both go by
// PostgreSQL's clock, which hardly moves while a month passes in the bubble, so that
// once in an hour will do.
type restfulTerms struct {
	Store
	term         int64
	leads, lives time.Time // until when it is not said again
}

// Lead implements Store.
func (r *restfulTerms) Lead(ctx context.Context, owner string, life time.Duration) (term int64, err error) {
	if r.term == 0 || time.Now().After(r.leads) {
		r.leads = time.Now().Add(time.Hour)
		r.term, err = r.Store.Lead(ctx, owner, life)
	}
	return r.term, err
}

// Attend implements Store.
func (r *restfulTerms) Attend(ctx context.Context, owner string) error {
	if time.Now().Before(r.lives) {
		return nil
	}
	r.lives = time.Now().Add(time.Hour)
	return r.Store.Attend(ctx, owner)
}

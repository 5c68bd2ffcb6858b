package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// replicas are several sidejobs on one PostgreSQL before one Trigger.dev, each a
// program of its own, and an app that calls whichever answers.
type replicas struct {
	*testing.T
	cluster  *cluster
	address  string // of the database
	db       *sql.DB
	trigger  string
	all      []*replica
	client   *http.Client
	answered sync.Map // what the answers were that are no success, and how many: *atomic.Int64
}

// replica is one of them.
type replica struct {
	*process
	name, base string
	excused    atomic.Bool  // killed or frozen: it need not answer
	avoided    atomic.Int64 // no call goes there before, in Unix milliseconds
}

func newReplicas(t *testing.T, count int) *replicas {
	r := &replicas{T: t, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 50}}}
	r.cluster, r.address = ownCluster(t)
	config, err := pgx.ParseConfig(withParameter(r.address, "search_path", "sidejob,public"))
	if err != nil {
		t.Fatal(err)
	}
	r.db = stdlib.OpenDB(*config)
	t.Cleanup(func() { _ = r.db.Close() }) // the server is gone by then
	r.trigger = startEmulatorProcess(t, "", `{"work":{"durationMs":100,"output":1}}`, "--emulator-rate-limit=-1")
	for n := range count {
		r.start(fmt.Sprint("replica ", n+1))
	}
	return r
}

// start adds a sidejob.
func (r *replicas) start(name string) {
	r.Helper()
	listen := freeAddress(r.T)
	env := []string{"SIDEJOB_TOKEN=process-token", "TRIGGER_SECRET_KEY=tr_dev_process", "TRIGGER_API_URL=" + r.trigger, "DATABASE_URL=" + r.address}
	i := &replica{process: startProcess(r.T, r.TempDir(), env, "serve", "--listen", listen), name: name, base: "http://" + listen}
	if _, err := i.err.waitFor(r.Context(), "sidejob serves"); err != nil {
		r.Fatal(err)
	}
	r.all = append(r.all, i)
	r.Cleanup(func() { r.tellOf(i) })
}

// tellOf shows the end of a replica's log where the test has failed.
func (r *replicas) tellOf(i *replica) {
	if r.Failed() {
		text := i.err.text()
		r.Logf("%s: …%s", i.name, text[max(0, len(text)-3000):])
	}
}

// pick is a replica that a balancer would choose now.
func (r *replicas) pick() *replica {
	at := time.Now().UnixMilli()
	well := slices.DeleteFunc(slices.Clone(r.all), func(i *replica) bool { return i.avoided.Load() > at })
	if len(well) == 0 {
		well = r.all
	}
	return well[rand.IntN(len(well))]
}

// post calls a replica. No status says that no whole answer came, which only one that
// was killed or frozen may do.
func (r *replicas) post(ctx context.Context, path, body, key string) (status int, answer []byte) {
	i := r.pick()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, i.base+path, strings.NewReader(body))
	if err != nil {
		r.Error(err)
		return 0, nil
	}
	q.Header.Set("Authorization", "Bearer process-token")
	q.Header.Set("Content-Type", "application/json")
	if key != "" {
		q.Header.Set("Idempotency-Key", key)
	}
	begun, excused := time.Now(), i.excused.Load()
	res, err := r.client.Do(q)
	if err == nil {
		defer res.Body.Close()
		answer, err = io.ReadAll(res.Body)
	}
	if err != nil {
		i.avoided.Store(time.Now().Add(5 * time.Second).UnixMilli())
		if !excused && !i.excused.Load() && ctx.Err() == nil {
			r.Errorf("%s: no answer to POST %s after %s: %v", i.name, path, time.Since(begun), err)
		}
		return 0, nil
	}
	r.see(i, path, res, answer)
	return res.StatusCode, answer
}

// see checks that an answer that says "later" says so clearly.
func (r *replicas) see(i *replica, path string, res *http.Response, answer []byte) {
	var p struct{ Code string }
	_ = json.Unmarshal(answer, &p) // a success has none
	clear := strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") && p.Code != ""
	switch {
	case res.StatusCode < 400:
		return
	case res.StatusCode == http.StatusServiceUnavailable && clear && res.Header.Get("Retry-After") != "":
	case res.StatusCode == http.StatusConflict && clear:
	default:
		r.Errorf("%s: POST %s: %d %s %v", i.name, path, res.StatusCode, answer, res.Header)
	}
	count, _ := r.answered.LoadOrStore(fmt.Sprint(res.StatusCode, " ", p.Code), new(atomic.Int64))
	count.(*atomic.Int64).Add(1)
}

// insist repeats a call with the same key until it is answered.
func (r *replicas) insist(ctx context.Context, path, body, key string) (status int, answer []byte) {
	for ctx.Err() == nil {
		status, answer = r.post(ctx, path, body, key)
		if status != 0 && status != http.StatusServiceUnavailable && !strings.Contains(string(answer), "idempotency_in_progress") {
			return status, answer
		}
		pause(ctx, 100*time.Millisecond)
	}
	return 0, nil
}

// term is that of the lead now, 0 where nobody has it or the database is away.
func (r *replicas) term() (term int64) {
	_ = r.db.QueryRow("SELECT term FROM lead WHERE expires_at > now()").Scan(&term)
	return term
}

// leader waits until a term after another one has begun, and finds who leads.
func (r *replicas) leader(after int64, within time.Duration) (i *replica, term int64) {
	r.Helper()
	for end := time.Now().Add(within); ; pause(r.Context(), 50*time.Millisecond) {
		if term = r.term(); term > after {
			break
		}
		if time.Now().After(end) {
			r.Fatalf("nobody has taken over from term %d within %s", after, within)
		}
	}
	says := fmt.Sprintf(`"msg":"leading","category":"server","term":%d}`, term)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); pause(r.Context(), 20*time.Millisecond) {
		for _, i := range r.all {
			if strings.Contains(i.err.text(), says) {
				return i, term
			}
		}
	}
	r.Fatalf("of no replica the log says %s", says)
	return nil, 0
}

// signal sends a signal to a replica.
func (r *replicas) signal(i *replica, s syscall.Signal) {
	r.Helper()
	if err := i.cmd.Process.Signal(s); err != nil {
		r.Fatal(err)
	}
}

// restartDatabase has PostgreSQL away for a while.
func (r *replicas) restartDatabase(away time.Duration) {
	r.Helper()
	if err := r.cluster.halt(); err != nil {
		r.Fatalf("stop PostgreSQL: %v", err)
	}
	pause(r.Context(), away)
	if _, err := r.cluster.boot(); err != nil {
		r.Fatalf("start PostgreSQL again: %v", err)
	}
}

// wantOneLeaderATerm reads the logs.
func (r *replicas) wantOneLeaderATerm() {
	r.Helper()
	led := map[int64]string{}
	for _, i := range r.all {
		for line := range strings.Lines(i.err.text()) {
			var l struct {
				Msg  string
				Term int64
			}
			if json.Unmarshal([]byte(line), &l) != nil || l.Msg != "leading" {
				continue
			}
			if other, led := led[l.Term]; led {
				r.Errorf("term %d was led by %s and by %s", l.Term, other, i.name)
			}
			led[l.Term] = i.name
		}
	}
	r.Logf("terms: %v", led)
}

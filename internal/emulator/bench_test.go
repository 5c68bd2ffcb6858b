package emulator

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crowd is an emulator with so many runs, all of them done, each with a tag of its
// own, one that a hundred share and one that all share. Its clock stands still.
func crowd(b *testing.B, runs int) (*Emulator, []string) {
	b.Helper()
	e, err := New(Config{RateLimit: -1, Tasks: map[string]Task{"x": {Status: "QUEUED"}}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	})
	v := env{ID: envOf(b, "tr_prod_bench"), Kind: prod}
	ids := make([]string, runs)
	e.mu.Lock()
	defer e.mu.Unlock()
	for n := range runs {
		r := e.create(v, "x", order{payload: []byte(`{"a":1}`), payloadType: "application/json", key: fmt.Sprint("k", n),
			tags: []string{"all", fmt.Sprint("own-", n), fmt.Sprint("some-", n/100)}}, "")
		r.Status, r.Output = completed, []byte(`{"done":true}`)
		e.changed(r)
		ids[n] = r.ID
	}
	return e, ids
}

func envOf(b *testing.B, key string) string {
	b.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+key)
	v, refused := environment(r, spellModern)
	if refused != nil {
		b.Fatal(refused)
	}
	return v.ID
}

func ask(b *testing.B, e *Emulator, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer tr_prod_bench")
	r.Header.Set("x-trigger-api-version", apiVersion)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w
}

func BenchmarkAmong100000Runs(b *testing.B) {
	e, ids := crowd(b, 100_000)
	for _, bb := range []struct{ name, path string }{
		{"retrieve", "/api/v3/runs/" + ids[50_000]},
		{"list", "/api/v1/runs?page[size]=100"},
		{"list by a tag of one", "/api/v1/runs?filter[tag]=own-777"},
		{"list by a tag of a hundred", "/api/v1/runs?filter[tag]=some-500&page[size]=100"},
		{"list by two tags", "/api/v1/runs?filter[tag]=some-500,own-3&page[size]=100"},
		{"list by a status of none", "/api/v1/runs?filter[status]=FAILED"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				ask(b, e, "GET", bb.path, "")
			}
		})
	}
}

// BenchmarkTrigger is a trigger request answered, run and done, with the journal.
func BenchmarkTrigger(b *testing.B) {
	e, err := New(Config{RateLimit: -1, StatePath: filepath.Join(b.TempDir(), "state"), Tasks: map[string]Task{"x": {}}})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		n++
		ask(b, e, "POST", "/api/v1/tasks/x/trigger",
			fmt.Sprintf(`{"payload":{"n":%d,"text":"some payload of the usual length, about a hundred bytes"},"options":{"idempotencyKey":"k%d","tags":["a","b%d"]}}`, n, n, n))
	}
	ask(b, e, "POST", "/emulator/advance", `{"ms":60000}`)
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
}

// BenchmarkRealtime is one changed run among 100,000 and the poll that shows it.
func BenchmarkRealtimePollAmong100000Runs(b *testing.B) {
	e, ids := crowd(b, 100_000)
	for _, query := range []string{"", "tags=all&", "tags=some-999&"} {
		b.Run(query, func(b *testing.B) {
			path := "/realtime/v1/runs?" + query
			got := ask(b, e, "GET", path+"offset=-1", "")
			handle := got.Header().Get("electric-shape-id")
			for b.Loop() {
				e.mu.Lock()
				e.changed(e.runs[ids[99_999]])
				e.mu.Unlock()
				got = ask(b, e, "GET", path+"live=true&offset="+got.Header().Get("electric-chunk-last-offset")+"&handle="+handle, "")
				if !strings.Contains(got.Body.String(), "insert") && !strings.Contains(got.Body.String(), "update") {
					b.Fatalf("no change in %s", got.Body)
				}
			}
		})
	}
}

func BenchmarkEmulatorRunsAmong100000(b *testing.B) {
	e, _ := crowd(b, 100_000)
	for _, query := range []string{"", "?values=false", fmt.Sprintf("?since=%d", 200_000-100)} {
		b.Run("all"+query, func(b *testing.B) {
			for b.Loop() {
				ask(b, e, "GET", "/emulator/runs"+query, "")
			}
		})
	}
}

// BenchmarkOpen is the start of a new life with the journal of 20,000 runs, each
// with all its lines.
func BenchmarkOpenAJournalOf20000Runs(b *testing.B) {
	cfg := Config{RateLimit: -1, StatePath: filepath.Join(b.TempDir(), "state"), Tasks: map[string]Task{"x": {}}}
	e, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	for n := range 20_000 {
		ask(b, e, "POST", "/api/v1/tasks/x/trigger", fmt.Sprintf(`{"payload":{"n":%d},"options":{"idempotencyKey":"k%d","tags":["a","b%d"]}}`, n, n, n))
	}
	ask(b, e, "POST", "/emulator/advance", `{"ms":60000}`)
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	whole, err := os.ReadFile(cfg.StatePath)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		if err := os.WriteFile(cfg.StatePath, whole, 0o600); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		again, err := New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := again.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

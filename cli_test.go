package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ran is what came of a command.
type ran struct {
	code     int
	out, err string
}

// terminal is the surroundings of a command under test.
type terminal struct {
	t   *testing.T
	env map[string]string
	in  string
}

// at gives commands a server, and a folder without a token file.
func at(t *testing.T, server string) *terminal {
	t.Helper()
	t.Chdir(t.TempDir())
	return &terminal{t: t, env: map[string]string{"SIDEJOB_URL": server}}
}

func (s *terminal) run(args ...string) ran {
	s.t.Helper()
	s.t.Setenv("SIDEJOB_URL", s.env["SIDEJOB_URL"])
	var out, errs bytes.Buffer
	std := streams{
		in: strings.NewReader(s.in), out: &out, err: &errs,
		env: func(name string) string { return s.env[name] },
	}
	code := run(s.t.Context(), args, std)
	return ran{code, out.String(), errs.String()}
}

// heard is a request as the fake API got it.
type heard struct {
	Method, Path, Query, Body string
	Header                    http.Header
}

// fakeAPI answers like the API and keeps what it was asked.
type fakeAPI struct {
	*httptest.Server
	mu    sync.Mutex
	calls []heard
}

// newFakeAPI answers every request with the reply for its method and path, "POST
// /api/jobs"; a path without a reply is a 404 problem.
func newFakeAPI(t *testing.T, replies map[string]reply) *fakeAPI {
	f := &fakeAPI{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.calls = append(f.calls, heard{r.Method, r.URL.Path, r.URL.RawQuery, string(body), r.Header})
		f.mu.Unlock()
		answer, ok := replies[r.Method+" "+r.URL.RequestURI()]
		if !ok {
			answer, ok = replies[r.Method+" "+r.URL.Path]
		}
		if !ok {
			answer = problemReply(404, "not_found", "job 9: no such job")
		}
		w.WriteHeader(answer.status)
		_, _ = io.WriteString(w, answer.body)
	}))
	t.Cleanup(f.Close)
	return f
}

type reply struct {
	status int
	body   string
}

func problemReply(status int, code, detail string) reply {
	text, err := json.Marshal(map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "code": code, "detail": detail,
	})
	if err != nil {
		panic(err)
	}
	return reply{status, string(text)}
}

// only is the one request that was made.
func (f *fakeAPI) only(t *testing.T) heard {
	t.Helper()
	if len(f.calls) != 1 {
		t.Fatalf("got %d requests, want 1: %+v", len(f.calls), f.calls)
	}
	return f.calls[0]
}

// jobReply is a job with some members changed.
func jobReply(status int, change map[string]any) reply {
	j := map[string]any{
		"id": 7, "tag": "welcome-42", "type": "send-email", "userId": 42, "data": map[string]any{"to": "a@b.c"},
		"due": "2026-03-01T09:00:00.000Z", "started": nil, "finished": nil, "removeAt": nil, "success": nil, "result": nil,
		"cronSchedule": nil, "timezone": "UTC", "rescheduledFromJob": nil, "persistent": false,
		"executor": "trigger", "triggerTaskId": "send-email", "triggerRunId": "run_1", "triggerScheduleId": nil,
		"triggerRawStatus": "QUEUED", "cancelRequested": false, "createdAt": "2026-03-01T09:00:00.000Z",
		"attempt": 0, "paused": false, "labels": []string{}, "status": "PENDING", "error": nil,
	}
	for name, value := range change {
		j[name] = value
	}
	text, err := json.Marshal(j)
	if err != nil {
		panic(err)
	}
	return reply{status, string(text)}
}

func endedReply(status string, result any) reply {
	return jobReply(200, map[string]any{
		"status": status, "triggerRawStatus": status, "started": "2026-03-01T09:00:01.000Z", "finished": "2026-03-01T09:00:04.000Z",
		"removeAt": "2026-03-01T10:00:04.000Z", "success": status == "COMPLETED", "result": result,
	})
}

func wantContains(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("got %s\n%s\nwant in it %q", what, got, part)
		}
	}
}

func wantCode(t *testing.T, got ran, code int) {
	t.Helper()
	if got.code != code {
		t.Fatalf("got exit code %d, want %d\nout: %s\nerr: %s", got.code, code, got.out, got.err)
	}
}

func TestProblemsBecomeExitCodes(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer reply
		code   int
		err    []string
	}{
		{"no such job", problemReply(404, "not_found", "job 7: no such job"), 3, []string{"sidejob: Not Found: job 7: no such job (404 not_found)"}},
		{"a conflict", problemReply(409, "conflict", "it has ended"), 1, []string{"it has ended (409 conflict)"}},
		{"a bad body", problemReply(400, "bad_json", "no JSON"), 1, []string{"(400 bad_json)"}},
		{"a body that is too large", problemReply(413, "too_large", "large"), 1, []string{"(413 too_large)"}},
		{"a foreign content type", problemReply(415, "unsupported_media_type", "what"), 1, []string{"(415"}},
		{"no token", problemReply(401, "unauthorized", "no token"), 1, []string{"SIDEJOB_TOKEN"}},
		{"a foreign origin", problemReply(403, "forbidden", "no"), 1, []string{"SIDEJOB_TOKEN"}},
		{"a foreign host name", problemReply(421, "misdirected_request", "no"), 1, []string{"--allowed-host"}},
		{"an error inside sidejob", problemReply(500, "internal", "see the log"), 1, []string{"see the log"}},
		{"a busy database", problemReply(503, "database_unavailable", "busy"), 1, []string{"busy"}},
		{"Trigger.dev down", problemReply(502, "trigger_unreachable", "Trigger.dev does not answer"), 5, []string{"Trigger.dev does not answer"}},
		{"a refusal by Trigger.dev", problemReply(422, "trigger_refused", "no such task"), 1, []string{"no such task"}},
		{"a proxy without a server", reply{502, "<html>Bad Gateway</html>"}, 5, []string{"is not sidejob: 502", "SIDEJOB_URL"}},
		{"another program's 404", reply{404, "404 page not found"}, 5, []string{"is not sidejob: 404"}},
		{"another program's 200", reply{200, "<html>Welcome</html>"}, 5, []string{"is not sidejob: 200"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": c.answer})
			got := at(t, api.URL).run("job", "get", "7")
			wantCode(t, got, c.code)
			wantContains(t, "stderr", got.err, c.err...)
			if got.out != "" {
				t.Errorf("got on stdout %q, want nothing", got.out)
			}
		})
	}
}

func TestAProblemNamesEachWrongMemberOnce(t *testing.T) {
	api := newFakeAPI(t, map[string]reply{"POST /api/jobs": {422, `{"title":"Unprocessable Entity","status":422,"code":"invalid",
		"detail":"tag is blank; userId: is negative","id":12,"errors":[
			{"location":"body.tag","message":"is blank"},
			{"location":"body.userId","message":"is negative","value":-3},
			{"location":"body","message":"is negative","value":{"secret":"payload"}}]}`}})
	got := at(t, api.URL).run("job", "schedule", "--type=a")
	wantCode(t, got, 1)
	want := `sidejob: Unprocessable Entity (422 invalid)
  tag: is blank
  userId: is negative, not -3
  body: is negative
the job stays as a record: sidejob job why 12
`
	if d := cmp.Diff(want, got.err); d != "" {
		t.Errorf("stderr (-want +got):\n%s", d)
	}
}

func TestAProblemCannotSteerTheTerminal(t *testing.T) {
	api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": problemReply(409, "conflict", "clear\x1b[2Jed \u009b1m")})
	got := at(t, api.URL).run("job", "get", "7")
	if want := "sidejob: Conflict: clear\uFFFD[2Jed \uFFFD1m (409 conflict)\n"; got.err != want {
		t.Errorf("got %q, want %q", got.err, want)
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"job get 1", "job schedule --type=a", "job list", "job wait 1", "job cancel 1", "job retry 1", "job why 1", "reconcile", "sync", "schedule list", "schedule pause 1", "schedule resume 1", "schedule delete 1"} {
		t.Run(command, func(t *testing.T) {
			got := at(t, address).run(strings.Fields(command)...)
			wantCode(t, got, 5)
			wantContains(t, "stderr", got.err, "cannot reach "+address, "is sidejob running? start it with: sidejob dev")
		})
	}
}

func TestAServerOnASocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	host := make(chan string, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host <- r.Host
		_, _ = io.WriteString(w, jobReply(200, nil).body)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	got := at(t, "unix:"+socket).run("job", "get", "7")
	wantCode(t, got, 0)
	if h := <-host; h != "localhost" {
		t.Errorf("got Host %q, want localhost", h)
	}
}

func TestTheTokenIsNotTakenElsewhere(t *testing.T) {
	elsewhere := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": jobReply(200, nil)})
	api := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/api/jobs/7", http.StatusTemporaryRedirect))
	t.Cleanup(api.Close)
	wantCode(t, at(t, api.URL).run("job", "get", "7"), 5)
	if len(elsewhere.calls) != 0 {
		t.Errorf("got %+v after a redirect, want nothing", elsewhere.calls)
	}
}

func TestBadAddresses(t *testing.T) {
	for _, address := range []string{"localhost:7766", "ftp://localhost", "http://", "unix:", "http://u:hunter2@localhost", "http://localhost?x=hunter2", "http://bad host/hunter2"} {
		t.Run(address, func(t *testing.T) {
			got := at(t, address).run("job", "get", "7")
			wantCode(t, got, 2)
			wantContains(t, "stderr", got.err, "SIDEJOB_URL")
			if strings.Contains(got.err, "hunter2") {
				t.Errorf("got %q, want the address kept quiet", got.err)
			}
		})
	}
}

func TestTheAddressMayHaveAPath(t *testing.T) {
	api := newFakeAPI(t, map[string]reply{"GET /jobs-api/api/jobs/7": jobReply(200, nil)})
	wantCode(t, at(t, api.URL+"/jobs-api/").run("job", "get", "7"), 0)
}

func TestTheTokenOfACommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		env   map[string]string
		local string // content of ./sidejob.token
		want  string // Authorization, where the command gets that far
		code  int
	}{
		{"none is needed", nil, "", "", 0},
		{"of the environment", map[string]string{"SIDEJOB_TOKEN": "from-env"}, "from-folder", "Bearer from-env", 0},
		{"of a named file", map[string]string{"SIDEJOB_TOKEN_FILE": file}, "from-folder", "Bearer from-file", 0},
		{"of the current folder", nil, "from-folder\r\n", "Bearer from-folder", 0},
		{"given twice", map[string]string{"SIDEJOB_TOKEN": "a", "SIDEJOB_TOKEN_FILE": file}, "", "", 2},
		{"in a file that is not there", map[string]string{"SIDEJOB_TOKEN_FILE": file + "x"}, "from-folder", "", 2},
		{"that is none", map[string]string{"SIDEJOB_TOKEN": "two\nlines"}, "", "", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := newFakeAPI(t, map[string]reply{"GET /api/jobs/7": jobReply(200, nil)})
			terminal := at(t, api.URL)
			for name, value := range c.env {
				terminal.env[name] = value
			}
			if c.local != "" {
				if err := os.WriteFile("sidejob.token", []byte(c.local), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := terminal.run("job", "get", "7")
			wantCode(t, got, c.code)
			if c.code != 0 {
				wantContains(t, "stderr", strings.ToLower(got.err), "token")
				return
			}
			if sent := api.only(t).Header.Get("Authorization"); sent != c.want {
				t.Errorf("got Authorization %q, want %q", sent, c.want)
			}
		})
	}
}

func TestBadFlags(t *testing.T) {
	for _, command := range []string{
		"job get", "job get seven", "job get 7 -o yaml", "job schedule --type=a --executor=cloud",
		"job schedule --type=a --on-conflict=fight", "job schedule --type=a --due=tomorrow", "job schedule --type=a --due=+soon",
		"job schedule --type=a --data={", "job schedule --type=a --metadata=@missing.json", "job schedule --type=a --token=x",
		"job list --status=done", "job list --created-after=yesterday", "job wait 7 --timeout=soon", "job wait 7 --timeout=-1s",
		"schedule pause", "schedule delete seven", "schedule preview", "schedule preview @daily --count=0", "schedule preview @daily --count=101",
		"schedule preview @daily --executor=cloud", "schedule preview @daily --from=soon", "schedule preview @daily -o yaml", "schedule list 7",
	} {
		t.Run(command, func(t *testing.T) {
			api := newFakeAPI(t, nil)
			got := at(t, api.URL).run(strings.Fields(command)...)
			wantCode(t, got, 2)
			if len(api.calls) != 0 {
				t.Errorf("got a request %+v, want none", api.calls)
			}
		})
	}
}

// roundTrips is a transport without sockets, for tests with simulated time.
type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func callerBy(f roundTrips) *caller {
	return &caller{base: "http://sidejob", shown: "http://sidejob", http: &http.Client{Transport: f}}
}

func response(r reply) *http.Response {
	return &http.Response{StatusCode: r.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.body))}
}

// refusal is what a transport says where nobody listens.
func refusal() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", fmt.Errorf("connection refused"))}
}

func queryOf(t *testing.T, raw string) url.Values {
	t.Helper()
	q, err := url.ParseQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func instantOf(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

package triggerdev

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func TestAnInlineOutputIsNotMistakenForNone(t *testing.T) {
	for out, want := range map[string]string{
		`,"output":null`:              "null",
		`,"output":false`:             "false",
		`,"output":0`:                 "0",
		`,"output":""`:                `""`,
		`,"output":[]`:                "[]",
		`,"output":12345678901234567`: "12345678901234567",
	} {
		c := serve(t, answer(http.StatusOK, `{"id":"r","status":"COMPLETED"`+out+`}`))
		run, err := c.Retrieve(t.Context(), "r")
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Output(t.Context(), run)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", out, got, err, want)
		}
	}
}

func TestNoOutputIsNil(t *testing.T) {
	body := golden(t, "retrieve-completed-no-output.json")
	c := serve(t, answer(http.StatusOK, body))
	run, err := c.Retrieve(t.Context(), "run_cmekq3v7x0001a4l8h2df0011")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Output(t.Context(), run); err != nil || got != nil {
		t.Errorf("got %q, %v; want nil", got, err)
	}
}

// presigned gives a client and a run whose output h serves.
func presigned(t *testing.T, h http.HandlerFunc) (*Client, Run) {
	t.Helper()
	s := quietServer(t, h)
	c := clientOf(t, Config{Branch: "b", UserAgent: "sidejob/1"})
	return c, Run{ID: "r", Status: "COMPLETED", OutputPresignedURL: s.URL + "/packets/o.json?X-Signature=feedc0de"}
}

func store(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
	}
}

func TestAStoredOutputBecomesPlainJSON(t *testing.T) {
	for name, tc := range map[string]struct{ contentType, body, want string }{
		"SuperJSON":          {"application/super+json", golden(t, "presigned-output-body.json"), `{"rows":1200,"generatedAt":"2026-08-20T09:09:12.000Z"}`},
		"SuperJSON null":     {"application/super+json; charset=utf-8", `{"json":null,"meta":{"values":["undefined"]}}`, `null`},
		"JSON":               {"application/json", `{"json":1}`, `{"json":1}`},
		"text":               {"text/plain; charset=utf-8", "a \"b\"\n<c>", `"a \"b\"\n<c>"`},
		"text that is empty": {"text/plain", "", `""`},
	} {
		t.Run(name, func(t *testing.T) {
			c, run := presigned(t, store(tc.contentType, tc.body))
			got, err := c.Output(t.Context(), run)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, "output", string(got), tc.want)
		})
	}
}

func TestTheStoreIsNotShownTheKey(t *testing.T) {
	var got http.Header
	c, run := presigned(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		store("application/json", "1")(w, r)
	})
	if _, err := c.Output(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Authorization", "X-Trigger-Api-Version", "X-Trigger-Branch"} {
		if got.Values(name) != nil {
			t.Errorf("%s: got %q, want none", name, got.Values(name))
		}
	}
	if got.Get("User-Agent") != "sidejob/1" {
		t.Errorf("user agent: got %q", got.Get("User-Agent"))
	}
}

func TestTheSizeOfAStoredOutputIsCapped(t *testing.T) {
	body := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	length := func(n string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", n)
			store("application/json", "")(w, r)
		}
	}
	chunked := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, body(MaxOutput+1))
	}
	for name, tc := range map[string]struct {
		h    http.HandlerFunc
		size int64
	}{
		"by its header":  {length("2147483648"), 2147483648},
		"by its content": {chunked, -1},
	} {
		c, run := presigned(t, tc.h)
		got, err := c.Output(t.Context(), run)
		var large *TooLargeError
		if !errors.As(err, &large) || large.Size != tc.size || got != nil {
			t.Errorf("%s: got %d bytes, %v; want a TooLargeError of size %d", name, len(got), err, tc.size)
		}
		if OutcomeOf(err) != Refused || !strings.Contains(err.Error(), strconv.Itoa(MaxOutput)) {
			t.Errorf("%s: got %v (%v), want the limit, and no second try", name, err, OutcomeOf(err))
		}
	}
	c, run := presigned(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(MaxOutput))
		store("application/json", body(MaxOutput))(w, r)
	})
	if got, err := c.Output(t.Context(), run); err != nil || len(got) != MaxOutput {
		t.Errorf("just fitting: got %d bytes, %v; want all %d", len(got), err, MaxOutput)
	}
}

func TestAStoreErrorIsNeitherABadKeyNorAMissingRun(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"an expired address":      func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"a missing object":        http.NotFound,
		"a redirect":              func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/else", http.StatusFound) },
		"an unknown content type": store("application/octet-stream", "1"),
		"broken JSON":             store("application/json", "{"),
		"a broken envelope":       store("application/super+json", "[1]"),
		"an empty envelope":       store("application/super+json", `{"meta":{}}`),
		"no reply":                func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a body cut off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			store("application/json", "1")(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, run := presigned(t, h)
			got, err := c.Output(t.Context(), run)
			var e *StoreError
			if !errors.As(err, &e) || got != nil {
				t.Fatalf("got %q, %v; want a StoreError", got, err)
			}
			if KeyRefused(err) || NotFound(err) || OutcomeOf(err) != Unknown {
				t.Errorf("%v: key refused %v, not found %v, %v; want none of it", err, KeyRefused(err), NotFound(err), OutcomeOf(err))
			}
			noSecret(t, err, "feedc0de")
		})
	}
}

func TestAPresignedAddressThatIsNoneIsNotQuoted(t *testing.T) {
	c := clientOf(t, Config{})
	for _, address := range []string{"file:///feedc0de", "feedc0de", "http://%zz/feedc0de", "https:///feedc0de"} {
		_, err := c.Output(t.Context(), Run{OutputPresignedURL: address})
		var e *StoreError
		if !errors.As(err, &e) {
			t.Errorf("%s: got %v, want a StoreError", address, err)
		}
		noSecret(t, err, "feedc0de")
	}
}

// noSecret fails if err, or an address that it wraps, shows a secret.
func noSecret(t *testing.T, err error, secret string) {
	t.Helper()
	if err == nil {
		return
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("got %q, which shows %q", err, secret)
	}
	var u *url.Error
	if errors.As(err, &u) {
		t.Errorf("%v wraps an address", err)
	}
}

func TestOutputOfARunThatFailedIsNil(t *testing.T) {
	var run Run
	if err := json.Unmarshal([]byte(golden(t, "retrieve-failed.json")), &run); err != nil {
		t.Fatal(err)
	}
	if got, err := clientOf(t, Config{}).Output(t.Context(), run); got != nil || err != nil {
		t.Errorf("got %q, %v; want nil", got, err)
	}
}

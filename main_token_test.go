package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestATokenIsRotatedWithoutARestart(t *testing.T) {
	t.Chdir(t.TempDir())
	database := filepath.Join(t.TempDir(), "some.db")
	env := map[string]string{"DATABASE_URL": database}
	if code, out, errs := sidejob(t, env, "token"); code != exitNotFound || out != "" {
		t.Errorf("before the first start: exit code %d, %q %q; want %d and nothing", code, out, errs, exitNotFound)
	}
	w := newWorld(t, withConfig(func(c *config) { c.database, c.tokenFile = database, tokenFileBeside(database) }))
	token := func(args ...string) string {
		t.Helper()
		code, out, errs := sidejob(t, env, append([]string{"token"}, args...)...)
		if code != 0 {
			t.Fatalf("token %q: exit code %d: %s", args, code, errs)
		}
		return strings.TrimSuffix(out, "\n")
	}
	opens := func(what, token string, want int) {
		t.Helper()
		if r := w.call("GET", "/api/jobs", nil, "Authorization", "Bearer "+token); r.status != want {
			t.Errorf("the %s token: got %d, want %d", what, r.status, want)
		}
	}
	first := token()
	opens("first", first, 200)
	second := token("rotate")
	if second == first || token() != second {
		t.Errorf("rotated from %q to %q, and printed is %q; want a new one", first, second, token())
	}
	opens("second", second, 200)
	opens("first", first, 200)
	third := token("rotate")
	opens("third", third, 200)
	opens("second", second, 200)
	opens("first", first, 401)
	w.halt()
	w.boot()
	opens("third, after a restart,", third, 200)
	opens("second, after a restart,", second, 200)

	env["SIDEJOB_TOKEN"] = "given"
	if got := token(); got != "given" {
		t.Errorf("a token that is given: printed is %q", got)
	}
	if code, _, errs := sidejob(t, env, "token", "rotate"); code != exitUsage || !strings.Contains(errs, "SIDEJOB_TOKEN") {
		t.Errorf("rotating one that is given: exit code %d, %s; want %d", code, errs, exitUsage)
	}
}

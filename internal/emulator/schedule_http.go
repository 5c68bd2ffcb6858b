package emulator

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Pages of the schedule list.
const (
	perPageDefault = 20
	perPageAtMost  = 100
)

// scheduleBody is a create or update request that has been read.
type scheduleBody struct {
	task, cron, zone, key, window string
	external                      *string
}

var windowShape = regexp.MustCompile(`^([1-9]\d*)(m|h|%)$`)

func readScheduleBody(raw []byte, keyNeeded bool) (scheduleBody, *reply) {
	if !json.Valid(raw) {
		return scheduleBody{}, failure(http.StatusInternalServerError, "Internal Server Error")
	}
	f := openForm(raw)
	var b scheduleBody
	if len(*f.issues) == 0 {
		f.need("task", "string")
		f.need("cron", "string")
		if keyNeeded {
			f.need("deduplicationKey", "string")
		}
		b = scheduleBody{task: f.text("task", 0), cron: f.text("cron", 0), zone: f.text("timezone", 0), window: f.text("window", 0)}
		if keyNeeded {
			b.key = f.text("deduplicationKey", 0)
		}
		if f.has("externalId") {
			b.external = new(f.text("externalId", 0))
		}
		if f.has("window") && !goodWindow(b.window) {
			f.add("Invalid window", "window")
		}
	}
	if len(*f.issues) > 0 {
		return b, issueList("Invalid request body", "issues", *f.issues)
	}
	b.zone = cmp.Or(b.zone, "UTC")
	return b, nil
}

// goodWindow takes up to 24 hours or 100%.
func goodWindow(s string) bool {
	found := windowShape.FindStringSubmatch(s)
	if found == nil {
		return false
	}
	n, err := strconv.Atoi(found[1])
	limit := map[string]int{"m": 24 * 60, "h": 24, "%": 100}[found[2]]
	return err == nil && n <= limit
}

// refuse says why a schedule may not be, in the server's order: cron, task, zone.
func (e *Emulator) refuse(b scheduleBody, origin string) *reply {
	_, zoneErr := time.LoadLocation(b.zone)
	zone := b.zone
	if zoneErr != nil || zone == "Local" {
		zone = "UTC" // so that the expression is judged by itself
	}
	task, known := e.tasks[b.task]
	switch err := e.checkCron(b.cron, zone); {
	case errors.Is(err, errTooFewFields):
		return failure(http.StatusInternalServerError, "Internal Server Error")
	case err != nil:
		return unprocessable("Invalid cron expression: %v", err)
	case !known:
		return unprocessable("Task with identifier %s not found in project.", b.task)
	case !task.Scheduled:
		return unprocessable("Task with identifier %s is not a scheduled task.", b.task)
	case zone != b.zone:
		return unprocessable("Invalid IANA timezone: '%s'. View the list of valid timezones at %s/timezones", b.zone, origin)
	}
	return nil
}

// createSchedule makes a schedule or, when the key is taken, by whichever
// environment, changes that one and moves it here. Task and active stay then.
func (e *Emulator) createSchedule(c *call) *reply {
	b, refused := readScheduleBody(c.body, true)
	if refused != nil {
		return refused
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if refused := e.refuse(b, c.origin()); refused != nil {
		return refused
	}
	var s *schedule
	if b.key != "" {
		s = e.scheduleKeyed(b.key)
	}
	if s == nil {
		s = e.newSchedule(b)
	}
	s.Env = c.env
	return e.setSchedule(s, b)
}

// putSchedule changes a schedule. A name that nobody has makes a new one, with
// another id.
func (e *Emulator) putSchedule(c *call) *reply {
	b, refused := readScheduleBody(c.body, false)
	if refused != nil {
		return refused
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.scheduleNamed(c.r.PathValue("schedule"))
	if s != nil && s.Env.ID != c.env.ID {
		return noSchedule()
	}
	if refused := e.refuse(b, c.origin()); refused != nil {
		return refused
	}
	if s == nil {
		s = e.newSchedule(b)
		s.Env = c.env
	}
	return e.setSchedule(s, b)
}

func (e *Emulator) newSchedule(b scheduleBody) *schedule {
	s := &schedule{ID: e.newID("sched_", 21), Task: b.task, Active: true, Key: b.key, OwnKey: b.key != "",
		Created: e.clock.now()}
	for _, other := range e.sched {
		s.Order = max(s.Order, other.Order+1)
	}
	if !s.OwnKey {
		s.Key = e.newID("", 24)
	}
	e.sched[s.ID] = s
	return s
}

// setSchedule sets what a request may change; what it leaves out is cleared.
func (e *Emulator) setSchedule(s *schedule, b scheduleBody) *reply {
	s.Cron, s.Zone, s.External, s.Window = b.cron, b.zone, b.external, b.window
	e.arm(s, e.clock.now())
	e.keep(s)
	v := s.view(true)
	v.Environments = []scheduleEnv{s.env("shortcode")}
	return success(v)
}

// scheduleView is a schedule as the API shows it.
type scheduleView struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Task         string          `json:"task"`
	Active       bool            `json:"active"`
	Generator    json.RawMessage `json:"generator"`
	Timezone     string          `json:"timezone"`
	Window       string          `json:"window,omitempty"`
	ExternalID   json.RawMessage `json:"externalId,omitempty"`
	Key          json.RawMessage `json:"deduplicationKey,omitempty"`
	Environments []scheduleEnv   `json:"environments"`
	NextRun      *string         `json:"nextRun"`
	Effective    *string         `json:"nextRunEffectiveAt"` // the same: the emulator fires at the nominal time
}

type scheduleEnv struct {
	ID        string `json:"id"`
	Shortcode string `json:"shortcode,omitempty"`
	Type      string `json:"type"`
	Slug      string `json:"slug,omitempty"`
	UserName  string `json:"userName,omitempty"`
}

// env shows the environment, with its short name under one of two members or none.
func (s *schedule) env(short string) scheduleEnv {
	v := scheduleEnv{ID: s.Env.ID, Type: s.Env.apiType()}
	switch short {
	case "shortcode":
		v.Shortcode = s.Env.Kind
	case "slug":
		v.Slug = s.Env.Kind
	}
	if s.Env.Kind == dev {
		v.UserName = developer
	}
	return v
}

// view shows the schedule; nextAlways also names the next run of an inactive one.
func (s *schedule) view(nextAlways bool) scheduleView {
	v := scheduleView{ID: s.ID, Type: "IMPERATIVE", Task: s.Task, Active: s.Active, Generator: s.generator(),
		Timezone: s.Zone, Window: s.Window, ExternalID: s.externalShown(), Key: s.keyShown(),
		Environments: []scheduleEnv{s.env("")}}
	if s.next != 0 && (s.Active || nextAlways) {
		next := s.next.iso()
		v.NextRun, v.Effective = &next, &next
	}
	return v
}

func noSchedule() *reply { return failure(http.StatusNotFound, "Schedule not found") }

// withSchedule finds the schedule that the path names in the caller's environment.
func (e *Emulator) withSchedule(c *call, do func(*schedule) *reply) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.scheduleNamed(c.r.PathValue("schedule"))
	if s == nil || s.Env.ID != c.env.ID {
		return noSchedule()
	}
	return do(s)
}

func (e *Emulator) getSchedule(c *call) *reply {
	return e.withSchedule(c, func(s *schedule) *reply { return success(s.view(false)) })
}

func (e *Emulator) deleteSchedule(c *call) *reply {
	return e.withSchedule(c, func(s *schedule) *reply {
		e.removeSchedule(s)
		return success(object("id", s.ID))
	})
}

func (e *Emulator) activate(c *call) *reply   { return e.switchSchedule(c, true) }
func (e *Emulator) deactivate(c *call) *reply { return e.switchSchedule(c, false) }

func (e *Emulator) switchSchedule(c *call, active bool) *reply {
	return e.withSchedule(c, func(s *schedule) *reply {
		s.Active = active
		e.keep(s)
		return success(s.view(false))
	})
}

func (e *Emulator) listSchedules(c *call) *reply {
	var issues []issue
	page := pageNumber(c.r.URL.Query(), "page", 1, &issues)
	size := pageNumber(c.r.URL.Query(), "perPage", perPageDefault, &issues)
	if len(issues) > 0 {
		return issueList("Invalid request parameters", "issues", issues)
	}
	size = min(size, perPageAtMost)
	e.mu.Lock()
	defer e.mu.Unlock()
	var rows []*schedule
	for _, s := range e.sched {
		if s.Env.ID == c.env.ID {
			rows = append(rows, s)
		}
	}
	slices.SortFunc(rows, func(a, b *schedule) int { return b.Order - a.Order })
	count := len(rows)
	rows = rows[min((page-1)*size, count):min(page*size, count)]
	shown := make([]scheduleView, len(rows))
	for n, s := range rows {
		shown[n] = s.view(true)
		shown[n].Environments = []scheduleEnv{s.env("slug")}
		if s.External == nil {
			shown[n].ExternalID = json.RawMessage("null")
		}
	}
	return success(object("data", shown, "pagination", object(
		"currentPage", page, "totalPages", (count+size-1)/size, "count", count)))
}

// pageNumber reads a whole number from 1 up; beyond a million it makes no difference.
func pageNumber(q url.Values, name string, absent int, issues *[]issue) int {
	if !q.Has(name) {
		return absent
	}
	n, err := strconv.ParseFloat(q.Get(name), 64)
	wrong := issue{Code: "invalid_type", Expected: "number", Received: "nan", Path: []any{name}, Message: "Expected number, received nan"}
	switch {
	case q.Get(name) == "":
		n = 0 // as JavaScript reads it
		fallthrough
	case err == nil && n <= 0:
		wrong = issue{Code: "too_small", Path: []any{name}, Message: "Number must be greater than 0"}
	case err == nil && n != math.Trunc(n):
		wrong = issue{Code: "invalid_type", Expected: "integer", Received: "float", Path: []any{name}, Message: "Expected integer, received float"}
	case err == nil:
		return int(min(n, 1<<20))
	}
	*issues = append(*issues, wrong)
	return absent
}

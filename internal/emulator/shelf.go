package emulator

import (
	"cmp"
	"slices"
)

// shelf holds the runs that have one thing in common, oldest first, and those who
// wait for one of them to change.
type shelf struct {
	name    string
	runs    []*run
	waiting map[*watcher]bool
}

// What runs on a shelf can have in common, all of one environment.
const (
	everyRun   = "all"
	byTag      = "tag"
	byTask     = "task"
	bySchedule = "schedule"
)

func shelfName(envID, kind, value string) string { return envID + "\x00" + kind + "\x00" + value }

// compareAge puts older runs first, and of one moment the smaller id.
func compareAge(a, b *run) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.ID, b.ID))
}

// put adds a run. Nearly always it is the youngest; a scheduled one, created at its
// nominal time, may be a little older.
func (s *shelf) put(r *run) {
	if n := len(s.runs); n == 0 || compareAge(s.runs[n-1], r) < 0 {
		s.runs = append(s.runs, r)
		return
	}
	at, found := slices.BinarySearchFunc(s.runs, r, compareAge)
	if !found {
		s.runs = slices.Insert(s.runs, at, r)
	}
}

// shelfOf finds a shelf, or makes it.
func (e *Emulator) shelfOf(name string) *shelf {
	s := e.shelves[name]
	if s == nil {
		s = &shelf{name: name}
		e.shelves[name] = s
	}
	return s
}

// shelve puts a run where it is looked for by one of its traits.
func (e *Emulator) shelve(r *run, kind, value string) {
	s := e.shelfOf(shelfName(r.Env.ID, kind, value))
	if slices.Contains(r.shelves, s) {
		return
	}
	s.put(r)
	r.shelves = append(r.shelves, s)
}

// index makes a run findable by id, by its traits and by the keys that it holds.
func (e *Emulator) index(r *run) {
	e.runs[r.ID], e.envs[r.Env.ID] = r, true
	e.shelve(r, everyRun, "")
	e.shelve(r, byTask, r.Task)
	if r.Schedule != "" {
		e.shelve(r, bySchedule, r.Schedule)
	}
	for _, tag := range r.Tags {
		e.shelve(r, byTag, tag)
	}
	if r.Key != "" && !r.KeyFree {
		e.byKey[keySlot(r.Env.ID, r.Task, r.Key)] = r
	}
	if r.CallKey != "" {
		e.byCall[callSlot(r.Env.ID, r.CallKey)] = r
	}
}

// peek gives the runs of a shelf without making one.
func (e *Emulator) peek(envID, kind, value string) []*run {
	if s := e.shelves[shelfName(envID, kind, value)]; s != nil {
		return s.runs
	}
	return nil
}

// span is the part of a shelf's runs that is not older than from and not younger
// than to.
func span(runs []*run, from, to instant) []*run {
	low, _ := slices.BinarySearchFunc(runs, from, func(r *run, t instant) int { return cmp.Compare(r.Created, t) })
	high, _ := slices.BinarySearchFunc(runs, to+1, func(r *run, t instant) int { return cmp.Compare(r.Created, t) })
	return runs[low:max(low, high)]
}

// walk goes through several shelves at once, in order of age, and meets each run
// once.
type walk struct {
	left   [][]*run // what each shelf still has
	upward bool     // from old to young; else from young to old
}

// next is nil at the end.
func (w *walk) next() *run {
	var best *run
	for _, runs := range w.left {
		if len(runs) > 0 && (best == nil || w.before(w.end(runs), best)) {
			best = w.end(runs)
		}
	}
	for n, runs := range w.left {
		switch {
		case len(runs) == 0 || w.end(runs) != best:
		case w.upward:
			w.left[n] = runs[1:]
		default:
			w.left[n] = runs[:len(runs)-1]
		}
	}
	return best
}

func (w *walk) end(runs []*run) *run {
	if w.upward {
		return runs[0]
	}
	return runs[len(runs)-1]
}

func (w *walk) before(a, b *run) bool {
	if w.upward {
		return compareAge(a, b) < 0
	}
	return compareAge(a, b) > 0
}

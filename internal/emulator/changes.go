package emulator

import (
	"cmp"
	"slices"
)

// Every change of a run gets the next number of one growing sequence and a line in
// the history. Who knows up to which number he has heard finds what is new at the
// end of it, however much stands before.

// change is a line of the history. It counts while it is its run's last one.
type change struct {
	seq int64
	run *run
}

// changed is the one door through which a change of a run becomes known: it moves
// updatedAt, writes the journal and wakes those who wait.
func (e *Emulator) changed(r *run) {
	r.Updated = e.clock.now()
	e.touch(r)
	r.moved = r.Seq
	r.wake()
	e.record(r)
}

// touch numbers a change, also one that is nobody's business outside: how often the
// run was asked for, whether it holds its key.
func (e *Emulator) touch(r *run) {
	e.seq++
	r.Seq = e.seq
	if len(e.history) >= 2*len(e.runs)+1024 {
		e.history = slices.DeleteFunc(e.history, func(c change) bool { return c.run.Seq != c.seq })
	}
	e.history = append(e.history, change{e.seq, r})
}

// remember puts a run of an earlier life into the history. Numbers go on from there.
func (e *Emulator) remember(r *run) {
	e.seq = max(e.seq, r.Seq)
	r.moved, r.joined = r.Seq, r.Seq
	e.history = append(e.history, change{r.Seq, r})
}

// record writes the run's line in the journal.
func (e *Emulator) record(r *run) { e.journal.put(entry{Run: r}) }

// since calls back with each run that has a change after that number, in the order
// of their last ones.
func (e *Emulator) since(seq int64, each func(*run)) {
	start, _ := slices.BinarySearchFunc(e.history, seq+1, func(c change, n int64) int { return cmp.Compare(c.seq, n) })
	for _, c := range e.history[start:] {
		if c.run.Seq == c.seq {
			each(c.run)
		}
	}
}

// watcher is woken when a run that it wants has changed.
type watcher struct {
	wants func(*run) bool
	bell  chan struct{} // holds one ring
}

func newWatcher(wants func(*run) bool) *watcher {
	return &watcher{wants: wants, bell: make(chan struct{}, 1)}
}

func (r *run) wake() {
	ring := func(waiting map[*watcher]bool) {
		for w := range waiting {
			if !w.wants(r) {
				continue
			}
			select {
			case w.bell <- struct{}{}:
			default:
			}
		}
	}
	ring(r.waiting)
	for _, s := range r.shelves {
		ring(s.waiting)
	}
}

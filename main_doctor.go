package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// doctorCommand looks for what keeps sidejob from working here, and says what mends it.
// It takes the flags and the environment of serve, and changes nothing.
type doctorCommand struct {
	serveCommand `embed:""`
	serverFlags  `embed:""`
	printFlags   `embed:""`
	WebhookURL   string `name:"webhook-url" placeholder:"URL" help:"Send the test event there, the way Trigger.dev's come, instead of to the server directly."`
}

// finding is what one look has shown.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, finding or skipped
	Says  string `json:"says"`
	Fix   string `json:"fix,omitempty"` // of a finding
}

// Run implements sidejob doctor. Its exit code is 1 when something was found.
func (c doctorCommand) Run(ctx context.Context, std streams) error {
	d := &doctor{doctorCommand: c, std: std}
	for _, look := range []func(context.Context){
		d.lookAtEnvironment, d.lookAtDatabase, d.lookAtTrigger, d.lookAtServer, d.lookAtWebhook,
	} {
		look(ctx)
		if ctx.Err() != nil {
			return exitf(exitFailure, "interrupted")
		}
	}
	if err := d.print(); err != nil {
		return err
	}
	if d.sick > 0 {
		return exitf(exitFailure, "%d found", d.sick)
	}
	return nil
}

// doctor is one examination.
type doctor struct {
	doctorCommand
	std      streams
	findings []finding
	sick     int

	signs   signs // of the database; see known
	known   bool
	healthy bool // the server answers
}

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, State: "ok", Says: fmt.Sprintf(format, args...)})
}

func (d *doctor) skip(check, format string, args ...any) {
	d.findings = append(d.findings, finding{Check: check, State: "skipped", Says: fmt.Sprintf(format, args...)})
}

func (d *doctor) find(check, says, fix string) {
	d.sick++
	d.findings = append(d.findings, finding{Check: check, State: "finding", Says: says, Fix: fix})
}

func (d *doctor) print() error {
	body, err := json.Marshal(map[string]any{"checks": d.findings})
	if err != nil {
		return err
	}
	return d.printFlags.print(d.std, body, func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, f := range d.findings {
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.State, f.Check, oneLine(f.Says, 400))
			if f.Fix != "" {
				fmt.Fprintf(w, "\t\t→ %s\n", oneLine(f.Fix, 400))
			}
		}
		return w.Flush()
	})
}

// lookAtEnvironment sees whether serve would start with these flags and variables.
func (d *doctor) lookAtEnvironment(context.Context) {
	if _, err := d.serveCommand.config(d.std.env); err != nil {
		d.find("environment", err.Error(), "sidejob serve would refuse to start: set it right")
		return
	}
	d.ok("environment", "serve takes the flags and variables as they are")
}

// lookAtDatabase sees whether serve takes the database, and who else uses it.
func (d *doctor) lookAtDatabase(ctx context.Context) {
	r, err := databaseFlags{d.Database}.look(ctx, d.std)
	switch {
	case err != nil:
		d.find("database", err.Error(), "see that DATABASE_URL is right, and that the database runs and lets sidejob in")
		return
	case r.Table == "none":
		d.ok("database", "there is none yet; serve makes it (%s)", r.Engine)
		return
	}
	for _, wrong := range r.Wrong {
		d.find("database", wrong, "sidejob db check tells more")
	}
	if len(r.Wrong) > 0 {
		return
	}
	d.ok("database", "%s, schema %d, worker_jobs: %s", r.Engine, r.Schema, r.Table)
	if err := d.readSigns(ctx); err != nil {
		d.find("database", err.Error(), "see that the role may read worker_jobs and the schema sidejob")
		return
	}
	d.lookForStrangers()
	d.lookAtLeader()
}

func (d *doctor) readSigns(ctx context.Context) error {
	address, _, err := databaseFlags{d.Database}.address(d.std)
	if err != nil {
		return err
	}
	store, err := openToLook(address)
	if err != nil {
		return err
	}
	d.signs, err = store.signs(ctx, now())
	d.known = err == nil
	return errors.Join(err, store.Close())
}

// lookForStrangers notices the origin's own worker loop, which knows no leases.
func (d *doctor) lookForStrangers() {
	if n := d.signs.strange; n > 0 {
		d.find("workers", fmt.Sprintf("%d internal jobs, such as %d, were begun or ended by a worker without a lease", n, d.signs.example),
			"switch the app's own worker loop off, it would run jobs a second time: let its workers claim them from sidejob")
		return
	}
	d.ok("workers", "nobody works on jobs without a lease")
}

// lookAtLeader says who leads, and whether the database's clock is ours.
func (d *doctor) lookAtLeader() {
	lead := d.signs.leader
	switch {
	case d.signs.clock.IsZero(): // SQLite: whoever has the file
		return
	case lead.Owner != "":
		d.ok("leader", "%s leads, in term %d; %s", lead.Owner, lead.Term, count(lead.Instances, "instance"))
	case d.Trigger != nil && !*d.Trigger:
		d.skip("leader", "without Trigger.dev there is nothing to lead; %s", count(lead.Instances, "instance"))
	case lead.Instances > 0:
		d.find("leader", fmt.Sprintf("%s on the database, and none leads", count(lead.Instances, "instance")),
			"one takes over within 12 s; if not, their logs say why")
	default:
		d.skip("leader", "no sidejob uses the database now")
	}
	d.compareClock("the database's clock", d.signs.clock)
}

// clockTolerance is how far clocks may lie apart: signatures count for 5 minutes, and
// due times are everybody's own.
const clockTolerance = 5 * time.Second

func (d *doctor) compareClock(whose string, at time.Time) {
	off := time.Since(at).Round(time.Second)
	if off.Abs() <= clockTolerance {
		d.ok("clock", "%s and this machine's agree", whose)
		return
	}
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	d.find("clock", fmt.Sprintf("this machine's clock is %s %s %s", off.Abs(), way, whose), "set the clocks by NTP (timedatectl set-ntp true)")
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

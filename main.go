// Command sidejob is a sidecar that gives any host app a job system it can trust.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // schedules need zones where the machine has none

	"github.com/alecthomas/kong"
)

// commands is the command line.
type commands struct {
	Dev      devCommand      `cmd:"" help:"Run everything a developer needs: API, webhook, SQLite and a Trigger.dev emulator. No account, no key."`
	Serve    serveCommand    `cmd:"" help:"Run in production, beside the app."`
	Emulator emulatorCommand `cmd:"" help:"Run the Trigger.dev emulator alone, for the host's own tests."`
	Job      jobCommands     `cmd:"" help:"Schedule, read, wait for, cancel and explain jobs."`

	Schedule scheduleCommands `cmd:"" help:"List, preview, pause, resume and end recurring jobs."`

	Reconcile reconcileCommand `cmd:"" help:"Compare all unfinished jobs with Trigger.dev."`
	Sync      syncCommand      `cmd:"" help:"Ask Trigger.dev about the active jobs."`
	Registry  registryCommands `cmd:"" help:"The job registry."`

	DB       dbCommands      `cmd:"" name:"db" help:"The database: make it, check it, adopt a host's table, copy it."`
	Doctor   doctorCommand   `cmd:"" help:"Look for what keeps sidejob from working here, and say what mends it. Exit code 1 when something is found."`
	Selftest selftestCommand `cmd:"" help:"Prove on this machine, by crashes and faults, that no job is lost, doubled or wrong."`

	Token   tokenCommands  `cmd:"" help:"Print the token of the private API, or make a new one."`
	OpenAPI openapiCommand `cmd:"" name:"openapi" help:"Print the OpenAPI document of the API."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv}))
}

// run carries out one command line and says with which status to exit.
func run(ctx context.Context, args []string, std streams) int {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("sidejob"), kong.Description("A job system in a sidecar: every job is a row, runs happen on Trigger.dev."),
		kong.Writers(std.out, std.err), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(std), kong.UsageOnError())
	if err != nil {
		return exitCode(std, err)
	}
	exited := -1
	parser.Exit = func(status int) { exited = status }
	parsed, err := parser.Parse(args)
	switch {
	case exited >= 0: // --help
		return exited
	case err != nil:
		return exitCode(std, usage(err))
	}
	return exitCode(std, parsed.Run())
}

type versionCommand struct{}

// Run implements sidejob version.
func (versionCommand) Run(std streams) error {
	_, err := fmt.Fprintln(std.out, version())
	return err
}

type openapiCommand struct{}

// Run implements sidejob openapi.
func (openapiCommand) Run(std streams) error {
	text, err := openapiDocument()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s\n", text)
	return err
}

type registryCommands struct {
	Check registryCheck `cmd:"" help:"Read the registry file and say what is wrong with it."`
}

type registryCheck struct {
	Registry string `env:"SIDEJOB_REGISTRY" help:"The job registry, a JSON file." required:""`
}

// Run implements sidejob registry check.
func (c registryCheck) Run(std streams) error {
	r, err := readRegistry(c.Registry)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s: %d jobs, nothing wrong\n", c.Registry, len(r.jobs))
	return err
}

// logFlags say what is logged, and how.
type logFlags struct {
	LogLevel  string `env:"LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"debug, info, warn or error."`
	LogFormat string `env:"LOG_FORMAT" default:"auto" enum:"auto,text,json" help:"text, json, or auto: text on a terminal."`
}

// logger writes to w, in colour where the terminal is one that wants it.
func (f logFlags) logger(w io.Writer, terminal, color bool) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.LogLevel)) // kong has checked it
	format := f.LogFormat
	if format == "auto" {
		format = "json"
		if terminal {
			format = "text"
		}
	}
	return newLogger(w, level, format, terminal && color)
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

// version and revision are set by the linker (-X main.version=...).
var (
	version  = "dev"
	revision = ""
)

// The exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

const defaultConfig = "/etc/highbase/hbd.yaml"

func main() {
	if len(os.Args) > 1 && os.Args[1] == plainVerb {
		fmt.Fprintln(os.Stderr, "hbd:", execPlain(os.Args[2:])) // it returns only when it failed
		os.Exit(exitFailed)
	}
	os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
}

// command carries out one command line.
func command(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("hbd", flag.ContinueOnError)
	flags.SetOutput(errs)
	path := flags.String("config", defaultConfig, "configuration `file`")
	onlyCheck := flags.Bool("check-config", false, "read the configuration, say what is wrong with it, and end")
	onlyVersion := flags.Bool("version", false, "print the version and end")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitDone
	} else if err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(errs, "hbd: %q is too much: hbd takes only options\n", flags.Arg(0))
		return exitUsage
	}
	if *onlyVersion {
		fmt.Fprintf(out, "hbd %s (%s) %s %s/%s\n", version, builtFrom(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitDone
	}
	c, err := loadConfig(*path)
	if err != nil {
		fmt.Fprintln(errs, err)
		return exitFailed
	}
	if *onlyCheck {
		for _, w := range c.Warnings {
			fmt.Fprintf(errs, "warning: %s\n", w)
		}
		fmt.Fprintf(out, "%s: nothing wrong: node %s of %d in cluster %s; %s\n", *path, c.Node, len(c.Peers), c.Cluster, c.Settings.Budget())
		return exitDone
	}
	return runDaemon(c, errs)
}

// runDaemon runs until a signal or a failure ends it.
func runDaemon(c *config, logs io.Writer) int {
	log := newLogger(logs, c.Log)
	slog.SetDefault(log) // for libraries that take no logger
	for _, w := range c.Warnings {
		log.Warn("configuration", "warning", w)
	}
	signals := make(chan os.Signal, 2) // the second one ends a hand-over that takes too long
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	// A log reader that went away must not end a primary.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	d := &daemon{cfg: c, log: log, exit: os.Exit}
	if err := d.run(signals); err != nil {
		log.Error("ended by a failure", "error", err)
		return exitFailed
	}
	return exitDone
}

// newLogger makes the one log of the process.
func newLogger(w io.Writer, c logConfig) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // checked with the configuration
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// builtFrom is the revision of the source.
func builtFrom() string {
	if revision != "" {
		return revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown revision"
}

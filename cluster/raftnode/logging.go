package raftnode

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
)

// levelTrace sits below slog's Debug, where hclog has a level of its own.
const levelTrace = slog.LevelDebug - 4

// repeatEvery is how often the same warning about the same peer is logged again. The library repeats
// "failed to heartbeat to" several times a second for as long as a peer is dead.
const repeatEvery = 10 * time.Second

// bridge is an hclog.Logger that writes to slog. The library insists on hclog; the daemon has one log.
type bridge struct {
	out     *slog.Logger
	name    string
	implied []any
	limit   *limiter
}

var _ hclog.Logger = (*bridge)(nil)

func newBridge(out *slog.Logger) *bridge {
	return &bridge{out: out.With("component", "raft"), limit: newLimiter(repeatEvery)}
}

// Log writes one line. Warnings and errors are limited per message and peer.
func (b *bridge) Log(level hclog.Level, msg string, args ...any) {
	lvl, on := slogLevel(level)
	if !on || !b.out.Enabled(context.Background(), lvl) {
		return
	}
	attrs := flatten(args)
	if lvl >= slog.LevelWarn {
		ok, suppressed := b.limit.allow(repeatKey(msg, attrs))
		if !ok {
			return
		}
		if suppressed > 0 {
			attrs = append(attrs, "suppressed", suppressed)
		}
	}
	b.out.Log(context.Background(), lvl, msg, attrs...)
}

// repeatKey tells messages apart by their text and by the peer they are about.
func repeatKey(msg string, attrs []any) string {
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i] == "peer" || attrs[i] == "id" || attrs[i] == "target" {
			return fmt.Sprint(msg, "\x00", attrs[i+1])
		}
	}
	return msg
}

// flatten turns hclog's arguments into slog's: same alternation, but hclog has formatted values and may
// leave a value without a key at the end.
func flatten(args []any) []any {
	out := make([]any, 0, len(args)+1)
	for i, a := range args {
		if i == len(args)-1 && i%2 == 0 {
			out = append(out, "extra")
		}
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if layout, ok := f[0].(string); ok {
				a = fmt.Sprintf(layout, f[1:]...)
			}
		}
		if i%2 == 0 && len(out)%2 == 0 {
			a = fmt.Sprint(a)
		}
		out = append(out, a)
	}
	return out
}

func slogLevel(l hclog.Level) (slog.Level, bool) {
	switch l {
	case hclog.Trace:
		return levelTrace, true
	case hclog.Debug:
		return slog.LevelDebug, true
	case hclog.NoLevel, hclog.Info:
		return slog.LevelInfo, true
	case hclog.Warn:
		return slog.LevelWarn, true
	case hclog.Error:
		return slog.LevelError, true
	case hclog.Off:
		return 0, false
	default:
		return slog.LevelInfo, true
	}
}

// The rest is hclog's interface, each method in terms of Log and slog's own levels.

func (b *bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b *bridge) IsTrace() bool { return b.enabled(levelTrace) }
func (b *bridge) IsDebug() bool { return b.enabled(slog.LevelDebug) }
func (b *bridge) IsInfo() bool  { return b.enabled(slog.LevelInfo) }
func (b *bridge) IsWarn() bool  { return b.enabled(slog.LevelWarn) }
func (b *bridge) IsError() bool { return b.enabled(slog.LevelError) }

func (b *bridge) enabled(l slog.Level) bool { return b.out.Enabled(context.Background(), l) }

func (b *bridge) ImpliedArgs() []any { return b.implied }
func (b *bridge) Name() string       { return b.name }

// With returns a logger that adds args to every line.
func (b *bridge) With(args ...any) hclog.Logger {
	next := *b
	next.implied = append(slices.Clone(b.implied), args...)
	next.out = b.out.With(flatten(args)...)
	return &next
}

// Named appends to the logger's name.
func (b *bridge) Named(name string) hclog.Logger {
	if b.name != "" {
		name = b.name + "." + name
	}
	return b.ResetNamed(name)
}

// ResetNamed replaces the logger's name.
func (b *bridge) ResetNamed(name string) hclog.Logger {
	next := *b
	next.name = name
	next.out = b.out.With("logger", name)
	return &next
}

// SetLevel does nothing: the level belongs to the daemon's slog handler.
func (b *bridge) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level the handler lets through.
func (b *bridge) GetLevel() hclog.Level {
	for _, l := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn, hclog.Error} {
		if lvl, _ := slogLevel(l); b.enabled(lvl) {
			return l
		}
	}
	return hclog.Off
}

// StandardLogger returns a *log.Logger whose lines go out at Info.
func (b *bridge) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(b.StandardWriter(opts), "", 0)
}

// StandardWriter returns a writer that logs each Write as a line at Info.
func (b *bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{b} }

type lineWriter struct{ b *bridge }

func (w lineWriter) Write(p []byte) (int, error) {
	w.b.Info(string(bytes.TrimRight(p, "\r\n")))
	return len(p), nil
}

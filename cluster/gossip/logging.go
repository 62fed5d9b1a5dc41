package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// repeatEvery is how often the same warning is logged again: memberlist repeats what it refuses with
// every packet that says it.
const repeatEvery = 10 * time.Second

// maxRemembered bounds the memory for that; when it is reached all is forgotten.
const maxRemembered = 256

// lines is the writer behind the *log.Logger memberlist wants. It turns "[WARN] memberlist: text" into a
// slog record.
type lines struct {
	out *slog.Logger
	// suspect gets the names of peers that did not answer a probe. memberlist tells this in its log
	// only, and one suspicion timeout before it calls the event delegate.
	suspect func(node string)

	mu   sync.Mutex
	seen map[string]time.Time
}

func newLogger(out *slog.Logger, suspect func(node string)) *log.Logger {
	return log.New(&lines{out: out, suspect: suspect, seen: make(map[string]time.Time)}, "", 0)
}

// Write logs one line.
func (l *lines) Write(p []byte) (int, error) {
	level, text := parse(string(bytes.TrimRight(p, "\n")))
	if node, ok := suspectIn(text); ok {
		l.suspect(node)
	}
	if l.out.Enabled(context.Background(), level) && (level < slog.LevelWarn || l.firstLately(text)) {
		l.out.Log(context.Background(), level, text)
	}
	return len(p), nil
}

func (l *lines) firstLately(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if at, ok := l.seen[text]; ok && now.Sub(at) < repeatEvery {
		return false
	}
	if len(l.seen) >= maxRemembered {
		clear(l.seen)
	}
	l.seen[text] = now
	return true
}

// parse splits a line of memberlist's into level and text.
func parse(line string) (slog.Level, string) {
	level := slog.LevelInfo
	if tag, rest, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(tag, "[") {
		line = rest
		switch tag[1:] {
		case "DEBUG":
			level = slog.LevelDebug
		case "WARN":
			level = slog.LevelWarn
		case "ERR", "ERROR":
			// What is an error to memberlist (a packet it cannot read, a peer it cannot reach) is never
			// more than a warning to us.
			level = slog.LevelWarn
		}
	}
	return level, strings.TrimPrefix(line, "memberlist: ")
}

// suspectIn recognises the line memberlist writes when a probe, direct and through others, got no answer.
func suspectIn(text string) (node string, ok bool) {
	rest, ok := strings.CutPrefix(text, "Suspect ")
	if !ok {
		return "", false
	}
	node, _, ok = strings.Cut(rest, " has failed, no acks received")
	return node, ok
}

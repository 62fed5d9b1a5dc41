package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

// demoWidth is where the story's lines are broken, in characters.
const demoWidth = 100

// demoIndent is the column of the text beside a label.
const demoIndent = 13

// style is a terminal style (SGR parameters).
type style string

const (
	styleHead  style = "1"
	styleFaint style = "2"
	styleGood  style = "32"
	styleBad   style = "31"
)

// narrator tells a demo's story while it happens: on stdout, or on stderr when stdout is for data.
type narrator struct {
	w      io.Writer
	colour bool
}

func newNarrator(a *app) *narrator {
	w := a.out
	if a.asJSON() {
		w = a.err
	}
	return &narrator{w: w, colour: a.colours(w)}
}

func (n *narrator) paint(s style, text string) string {
	if !n.colour {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// head begins a part.
func (n *narrator) head(format string, args ...any) {
	fmt.Fprintf(n.w, "\n%s\n", n.paint(styleHead, clean(fmt.Sprintf(format, args...))))
}

// detail is a line that may be overlooked.
func (n *narrator) detail(text string) {
	fmt.Fprintf(n.w, "   %s\n", n.paint(styleFaint, clean(text)))
}

// line is a label with text, broken at demoWidth.
func (n *narrator) line(label, format string, args ...any) {
	lines := wrap(cell(fmt.Sprintf(format, args...)), demoWidth-demoIndent)
	for i, text := range lines {
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(n.w, "   %-*s%s\n", demoIndent-3, label, text)
	}
}

// bad says what went wrong.
func (n *narrator) bad(text string) {
	for i, line := range wrap(cell(text), demoWidth-demoIndent) {
		label := ""
		if i == 0 {
			label = "failed"
		}
		fmt.Fprintf(n.w, "   %s%s\n", n.paint(styleBad, fmt.Sprintf("%-*s", demoIndent-3, label)), line)
	}
}

// step tells one step of the demo after it has ended.
func (n *narrator) step(s demoStep, st api.Status, acknowledged int) {
	n.line("decided", "%s, because %s", s.decision(), s.Cause)
	for i, p := range s.Phases {
		label := ""
		if i == 0 {
			label = "phases"
		}
		n.line(label, "%-10s %9s", cell(p.Name), millis(p.MS))
	}
	n.line("write gap", "%s; %d writes acknowledged so far", millis(s.WriteGapMS), acknowledged)
	n.line("now", "%s is primary in epoch %d, %d of %d replicas follow", st.Primary, st.Epoch, s.Following, s.Replicas)
	if s.Problem != "" {
		n.bad(s.Problem)
	}
}

// wrap breaks text at spaces so that no line is longer than width, words that are longer apart.
func wrap(text string, width int) []string {
	var lines []string
	rest := text
	for len([]rune(rest)) > width {
		runes := []rune(rest)
		at := strings.LastIndex(string(runes[:width+1]), " ")
		if at <= 0 {
			at = strings.Index(rest, " ")
			if at <= 0 {
				break
			}
		}
		lines = append(lines, strings.TrimRight(rest[:at], " "))
		rest = strings.TrimLeft(rest[at:], " ")
	}
	return append(lines, rest)
}

func msSince(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }

package main

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// isTerminal says whether a stream is a terminal: only there may we ask, colour or clear.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// colours says whether w may be coloured (https://no-color.org, TERM=dumb, pipes).
func (a *app) colours(w io.Writer) bool {
	return a.env("NO_COLOR") == "" && a.env("TERM") != "dumb" && isTerminal(w)
}

// clean makes text from the network safe to print: no control characters reach the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// cell is text for one cell of a table: one line, and never empty.
func cell(s string) string {
	s = strings.ReplaceAll(clean(s), "\n", " ")
	if s == "" {
		return "-"
	}
	return s
}

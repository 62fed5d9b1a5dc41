package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Prefix is where the handler is mounted; the method's name follows it.
const Prefix = "/rpc/"

// Headers of a request and its answer. Changing them breaks a rolling upgrade.
const (
	headerCluster      = "Highbase-Cluster"
	headerFrom         = "Highbase-From"
	headerFromInstance = "Highbase-From-Instance"
	headerTo           = "Highbase-To"
	headerToInstance   = "Highbase-To-Instance"
	// headerTimeout carries the caller's remaining patience in milliseconds: a duration, because two
	// machines' clocks do not compare.
	headerTimeout = "Highbase-Timeout-Ms"
)

// MaxBody is the largest request, MaxAnswer the largest answer, in bytes. Requests are orders of a few
// hundred bytes; an answer may carry a whole status.
const (
	MaxBody   = 1 << 20
	MaxAnswer = 8 << 20
)

// Handshake is who asks whom. Empty fields are possible only for methods registered with HandleOpen.
type Handshake struct {
	Cluster            string
	From, FromInstance string
	To, ToInstance     string
}

func (h Handshake) write(to http.Header) {
	to.Set(headerCluster, h.Cluster)
	to.Set(headerFrom, h.From)
	to.Set(headerFromInstance, h.FromInstance)
	to.Set(headerTo, h.To)
	to.Set(headerToInstance, h.ToInstance)
}

func readHandshake(from http.Header) Handshake {
	return Handshake{
		Cluster: from.Get(headerCluster),
		From:    from.Get(headerFrom), FromInstance: from.Get(headerFromInstance),
		To: from.Get(headerTo), ToInstance: from.Get(headerToInstance),
	}
}

// Decode reads exactly one JSON value into v. Unknown fields are an error: a field this version does not
// know may be a condition it would ignore. An empty body leaves v as it is.
func Decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return decodeOne(d, v)
}

// decodeAnswer is Decode without the ban on unknown fields: a newer peer may say more than was asked.
func decodeAnswer(body []byte, v any) error {
	return decodeOne(json.NewDecoder(bytes.NewReader(body)), v)
}

func decodeOne(d *json.Decoder, v any) error {
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// readAtMost reads a body and fails beyond limit.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, ErrTooLarge.Errorf("over %d bytes", limit)
	}
	return b, nil
}

// writeTimeout and readTimeout carry the time left to answer.
func writeTimeout(h http.Header, left time.Duration) {
	h.Set(headerTimeout, strconv.FormatInt(max(left.Milliseconds(), 1), 10))
}

func readTimeout(h http.Header) (time.Duration, error) {
	ms, err := strconv.ParseInt(h.Get(headerTimeout), 10, 64)
	if err != nil || ms < 1 || ms > maxTimeout.Milliseconds() {
		return 0, fmt.Errorf("%s %q is not a number from 1 to %d", headerTimeout, h.Get(headerTimeout), maxTimeout.Milliseconds())
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// maxTimeout bounds what a caller may ask for: the longest order is a rebuild's step.
const maxTimeout = time.Hour

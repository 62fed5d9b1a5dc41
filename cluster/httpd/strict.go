package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
)

// maxBody bounds a request's body; the largest honest one is a pause with a long reason.
const maxBody = 64 << 10

// decodeBody reads a request's body into the struct that out points to. The error has one clear
// sentence and is what the caller is told.
func decodeBody(w http.ResponseWriter, r *http.Request, out any) error {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return fmt.Errorf("the body is longer than %d bytes", tooLong.Limit)
	}
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	return decodeStrict(data, out)
}

// decodeStrict is json.Unmarshal for a flat object without its leniences: no unknown, repeated or
// differently cased keys, nothing after the object, no null. A typo in a request that changes who is
// primary must not turn into a default. out points to a struct whose every field is always encoded.
func decodeStrict(data []byte, out any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return errors.New("the body is empty, expected a JSON object (at least {})")
	}
	known, err := keysOf(out)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	first, err := dec.Token()
	if err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	if first != json.Delim('{') {
		return errors.New("the body is not a JSON object")
	}
	if err := checkKeys(dec, known); err != nil {
		return err
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON object")
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("the body does not fit: %w", err)
	}
	return nil
}

// checkKeys reads the members of an object up to its closing brace.
func checkKeys(dec *json.Decoder, known map[string]bool) error {
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return fmt.Errorf("the body is not JSON: %w", err)
		}
		key, ok := token.(string)
		if !ok {
			return errors.New("the body is not JSON: a key is not a string")
		}
		if !known[key] {
			return fmt.Errorf("unknown key %q, known are %s", key, strings.Join(sortedKeys(known), ", "))
		}
		if seen[key] {
			return fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("the value of %q is not JSON: %w", key, err)
		}
		if string(value) == "null" {
			return fmt.Errorf("key %q is null, leave it out instead", key)
		}
	}
	return nil
}

// keysOf lists the keys of the struct out points to, as it encodes itself.
func keysOf(out any) (map[string]bool, error) {
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("listing the keys of %T: %w", out, err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("listing the keys of %T: %w", out, err)
	}
	known := make(map[string]bool, len(fields))
	for k := range fields {
		known[k] = true
	}
	return known, nil
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Package api is the wire contract between hbd and everybody who talks to it: the types of the JSON
// API served on port 7948 and a client that follows an operation to its end.
//
// The shapes here are a promise to scripts. Every key is always present, ids and GTIDs are strings,
// names are snake_case, instants are RFC 3339 in UTC, and a number's unit is in its name. What does
// not apply or is not known is null or an empty string, never a missing key.
//
// It does not decide, retry writes whose outcome is unknown, or import anything outside the standard
// library: a tool built on it carries no Raft and no MySQL code.
package api

// Package check judges whether hosts and servers are set up as the guarantees need: a table of rows over
// plain values that every node gave of itself.
//
// It does not ask anybody, change anything, or know the time.
package check

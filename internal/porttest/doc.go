// Package porttest gives tests TCP ports to listen on.
//
// It does not listen on them, and is for tests only.
package porttest

//go:build !linux

package sniff

// A readyReader is nothing here: grpc-go reads like this on Linux only, and keeps a buffer for a bare connection too.
type readyReader struct{}

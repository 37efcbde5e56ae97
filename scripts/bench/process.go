package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
)

// process is a server process, as the load process has it.
type process struct {
	variant
	addr    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
}

// startProcess starts the server of v. The environment sets the same garbage collector
// and number of threads for all; env is added to it.
func startProcess(v variant, env ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{variant: v, cmd: exec.Command(exe, "-serve", v.name)}
	p.cmd.Env = append(os.Environ(), "GOGC=100", "GOMEMLIMIT=off", "GODEBUG=", fmt.Sprintf("GOMAXPROCS=%d", runtime.NumCPU()))
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(bufio.NewReader(out))
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var first answer
	if err := p.answers.Decode(&first); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", v.name, err), p.stop())
	}
	p.addr = first.Addr
	return p, nil
}

// ask sends a line and returns the answer.
func (p *process) ask(format string, args ...any) (answer, error) {
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		return answer{}, fmt.Errorf("%s: %w", p.name, err)
	}
	var a answer
	if err := p.answers.Decode(&a); err != nil {
		return answer{}, fmt.Errorf("%s: %w", p.name, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", p.name, a.Error)
	}
	return a, nil
}

// stop ends the process, which ends with its standard input.
func (p *process) stop() error {
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// A second key provider, written from docs/ alone: it shares nothing with src, so that what both understand alike is what the
// documents say. It reads one line for each call, {"setup": …, "request": base64}, and answers {"code": …, "reply": …};
// {"uri": …} asks for the canonical form of a key URI, {"services": …} says which keys the key services have from now on, and
// {"setup": …, "forge": …} makes what one who can open a packet can make of it.
package main

import (
	"bufio"
	"encoding/json"
	"os"
)

type call struct {
	Setup    setup
	Request  []byte
	URI      *string
	Services []service
	Forge    *forgery
}

// A forgery is the members of a packet in place of another's, under a right MAC; sealed anew if there is a record.
type forgery struct {
	Packet, Record []byte
	Members        string
}

type answer struct {
	Code  string `json:"code"`
	Reply string `json:"reply,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var one call
		must(json.Unmarshal(lines.Bytes(), &one))
		must(out.Encode(one.play()))
	}
}

func (c call) play() (a answer) {
	if c.URI != nil {
		k, ok := parseKey(*c.URI)
		if !ok {
			return answer{Code: "bad-input"}
		}
		return answer{"ok", k.canonical}
	}
	if c.Services != nil {
		services = c.Services
		return answer{Code: "ok"}
	}
	defer func() {
		switch caught := recover().(type) {
		case nil:
		case failure:
			a = answer{Code: string(caught)}
		default:
			panic(caught)
		}
	}()
	if c.Forge != nil {
		return answer{"ok", string(c.Setup.forge(*c.Forge))}
	}
	return answer{"ok", c.Setup.answer(c.Request)}
}

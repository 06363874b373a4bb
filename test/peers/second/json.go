package main

import (
	"encoding/base64"
	"errors"
	"regexp"
	"sort"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// A JSON value as docs/protocol.md, section 2, and docs/packet.md, section 1, want it read. encoding/json takes names in any
// case, members twice and malformed UTF-8, so it is not used for anything that comes from a client or a packet.
type value struct {
	kind    byte // '{', '[', '"', '0' (a number) or 'l' (true, false, null)
	text    string
	list    []value
	members []member
}

type member struct {
	name  string
	value value
}

const null = "null"

var errJSON = errors.New("not the JSON that is wanted")
var number = regexp.MustCompile(`^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?`)

type parser struct{ rest string }

func parseJSON(data []byte) (v value, err error) {
	if !utf8.Valid(data) {
		return v, errJSON
	}
	defer func() {
		if recover() != nil {
			err = errJSON
		}
	}()
	p := &parser{string(data)}
	v = p.value(1)
	p.space()
	if p.rest != "" {
		panic(errJSON)
	}
	return v, nil
}

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// next takes one character after white space.
func (p *parser) next() byte {
	p.space()
	c := p.rest[0]
	p.rest = p.rest[1:]
	return c
}

func (p *parser) peek() byte {
	p.space()
	return p.rest[0]
}

func (p *parser) value(level int) value {
	switch c := p.peek(); {
	case c == '"':
		return value{kind: '"', text: p.string()}
	case c == '{' || c == '[':
		if level > 16 {
			panic(errJSON)
		}
		p.next()
		v := value{kind: c}
		if p.peek() == c+2 {
			p.next()
			return v
		}
		for {
			if c == '{' {
				p.space()
				name := p.string()
				if _, twice := v.get(name); twice || p.next() != ':' {
					panic(errJSON)
				}
				v.members = append(v.members, member{name, p.value(level + 1)})
			} else {
				v.list = append(v.list, p.value(level+1))
			}
			switch p.next() {
			case ',':
			case c + 2:
				return v
			default:
				panic(errJSON)
			}
		}
	}
	for _, literal := range []string{null, "true", "false"} {
		if strings.HasPrefix(p.rest, literal) {
			p.rest = p.rest[len(literal):]
			return value{kind: 'l', text: literal}
		}
	}
	text := number.FindString(p.rest)
	if text == "" || len(text) > 32 {
		panic(errJSON)
	}
	p.rest = p.rest[len(text):]
	return value{kind: '0', text: text}
}

func (p *parser) string() string {
	if p.rest[0] != '"' {
		panic(errJSON)
	}
	var out strings.Builder
	for i := 1; ; i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return out.String()
		case c < 0x20:
			panic(errJSON)
		case c != '\\':
			out.WriteByte(c)
		default:
			i++
			if at := strings.IndexByte(`"\/bfnrt`, p.rest[i]); at >= 0 {
				out.WriteByte("\"\\/\b\f\n\r\t"[at])
				continue
			}
			unit := p.unit(i - 1)
			i += 4
			if utf16.IsSurrogate(unit) && strings.HasPrefix(p.rest[i+1:], `\u`) {
				if pair := utf16.DecodeRune(unit, p.unit(i+1)); pair != unicode.ReplacementChar {
					unit, i = pair, i+6
				}
			}
			out.WriteRune(unit) // half of a pair is written as U+FFFD
		}
	}
}

// unit reads \uXXXX at i.
func (p *parser) unit(i int) (unit rune) {
	if p.rest[i+1] != 'u' {
		panic(errJSON)
	}
	for _, c := range p.rest[i+2 : i+6] {
		digit := strings.IndexRune("0123456789abcdef", unicode.ToLower(c))
		if digit < 0 || c > 'f' {
			panic(errJSON)
		}
		unit = unit<<4 | rune(digit)
	}
	return unit
}

func (v value) get(name string) (value, bool) {
	for _, m := range v.members {
		if m.name == name {
			return m.value, true
		}
	}
	return value{}, false
}

// fold finds a member as Go's clients do, in any case. The name must not stand there twice.
func (v value) fold(name string) (found value, ok bool, err error) {
	for _, m := range v.members {
		if strings.EqualFold(m.name, name) {
			if ok {
				return found, ok, errJSON
			}
			found, ok = m.value, true
		}
	}
	return
}

func (v value) isText() bool   { return v.kind == '"' }
func (v value) isObject() bool { return v.kind == '{' }
func (v value) isNull() bool   { return v.kind == 'l' && v.text == null }

func text(s string) value { return value{kind: '"', text: s} }

// canonical is RFC 8785 for what packets hold.
func (v value) canonical() string {
	switch v.kind {
	case '"':
		return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(v.text) + `"`
	case '[':
		parts := []string{}
		for _, one := range v.list {
			parts = append(parts, one.canonical())
		}
		return "[" + strings.Join(parts, ",") + "]"
	case '{':
		parts := []string{}
		members := append([]member{}, v.members...)
		sort.Slice(members, func(a, b int) bool { return members[a].name < members[b].name })
		for _, one := range members {
			parts = append(parts, text(one.name).canonical()+":"+one.value.canonical())
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return v.text
}

// decode64 is strict: encoding/base64 skips line ends.
func decode64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	bytes, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, false // what had been decoded until then is no bytes at all
	}
	return bytes, true
}

func encode64(bytes []byte) string { return base64.StdEncoding.EncodeToString(bytes) }

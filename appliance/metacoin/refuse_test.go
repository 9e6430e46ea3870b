package metacoin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/metacoin"
	"signdrop/appliance/reason"
)

// transferWith is a good transfer but for the fields given.
func transferWith(change string) string {
	return with(`{"operation":"transfer","from":"{A}","to":"{B}","token":"0","amount":"1","nonce":"{N}"}`, change)
}

// with sets the fields of change in a request; null takes a field out.
func with(request, change string) string {
	fields := decode(request)
	for name, value := range decode(change) {
		if fields[name] = value; string(value) == "null" {
			delete(fields, name)
		}
	}
	return encode(fields)
}

func decode(object string) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(expand(object)), &fields); err != nil {
		panic(err)
	}
	return fields
}

// encode writes the fields in a fixed order and leaves every character that
// JSON allows as it is.
func encode(fields map[string]json.RawMessage) string {
	var b bytes.Buffer
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		b.WriteString(`"` + name + `":`)
		b.Write(fields[name])
	}
	return b.String() + "}"
}

// listWith is a good multitransfer of two entries but for the first.
func listWith(first string) string {
	entry := with(`{"address":"{B}","amount":"1","unlockdate":"0"}`, first)
	return `{"operation":"multitransfer","from":"{A}","token":"0","nonce":"{N}","transferlist":[` + entry +
		`,{"address":"{C}","amount":"1","unlockdate":"0"}]}`
}

const (
	sellOrder = `{"operation":"mrc010_sell","address":"{A}","amount":"1000","mrc010id":"17","price":"1","token":"0","nonce":"{N}"}`
	auction   = `{"operation":"mrc402_auction","mrc402id":"{T}","address":"{A}","amount":"3","auction_start_price":"10","token":"0","auction_buynow_price":"0","nonce":"{N}"}`
	update    = `{"operation":"mrc402_update","mrc402id":"{T}","url":"https://example.com","nonce":"{N}"}`
	reward    = `{"operation":"mrc100_reward","from":"{A}","token":"17","userlist":[{"address":"{B}","amount":"5","tag":"","memo":""}],"nonce":"{N}"}`
	item      = `{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0","transferable":"Bound","sell_fee":"0"}`
	newItems  = `{"operation":"mrc401_create","ledger":"testnet","mrc400id":"{P}","creator":"{A}","itemdata":[` + item + `],"nonce":"{N}"}`
	saleItems = `{"operation":"mrc401_sell","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":[{"id":"{P}_{X}","amount":"1","token":"0"}],"nonce":"{N}"}`
	itemIDs   = `{"operation":"mrc401_unsell","ledger":"testnet","seller":"{A}","itemdata":["{P}_{X}"],"nonce":"{N}"}`
	poll      = `{"operation":"mrc030_create","owner":"{A}","title":"Poll","startdate":"10","enddate":"20","reward":"1","rewardtoken":"0","maxrewardrecipient":"100","rewardtype":"20","url":"https://example.com","query":[{"question":"q"}],"nonce":"{N}"}`
	vote      = `{"operation":"mrc030_join_voter","mrc030id":"{V}","voter":"{A}","answer":[{"answer":1}]}`
	sealed    = `{"operation":"mrc020_set","owner":"{A}","data":"d","publickey":"k","opendate":"1","referencekey":"a_b","nonce":"{N}"}`
	newArt    = `{"operation":"mrc402_create","creator":"{A}","name":"Art","creatorcommission":"1","totalsupply":"1","decimal":"0","url":"https://example.com","imageurl":"https://example.com","expiredate":"0","nonce":"{N}"}`
	project   = `{"operation":"mrc400_create","ledger":"testnet","owner":"{A}","name":"P","url":"https://example.com","imageurl":"https://example.com","nonce":"{N}"}`
	trade     = `{"operation":"mrc401_createtrade_creator","ledger":"testnet","mrc400id":"{P}","creator":"{A}","itemdata":` + item + `,"buyer":"{B}","price":"50","token":"0","nonce":"{N}"}`
)

// TestGoodBefore: what the cases below spoil is good, so that each is refused
// for its own fault.
func TestGoodBefore(t *testing.T) {
	for _, good := range []string{transferWith(`{}`), listWith(`{}`), sellOrder, auction, update, reward, newItems, saleItems,
		itemIDs, poll, vote, sealed, newArt, project, trade} {
		if _, err := metacoin.Parse([]byte(expand(good))); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestRefused(t *testing.T) {
	long := func(n int) string { return strings.Repeat("1", n) }
	for _, c := range []struct {
		name    string
		request string
		code    reason.Code
		field   string
		hint    string // that the hint must hold
	}{
		// The object.
		{"empty", ``, reason.RequestMalformed, "", ""},
		{"cut short", `{"operation":"transfer"`, reason.RequestMalformed, "", ""},
		{"no object", `"transfer"`, reason.FieldInvalid, "", "object"},
		{"array", `[]`, reason.FieldInvalid, "", "object"},
		{"comma at the end", `{"operation":"transfer",}`, reason.RequestMalformed, "", ""},
		{"comment", `{/**/}`, reason.RequestMalformed, "", ""},
		{"something after", transferWith(`{}`) + `{}`, reason.RequestMalformed, "", ""},
		{"name twice", `{"operation":"transfer","operation":"transfer"}`, reason.RequestMalformed, "", "once"},
		{"name twice, once escaped", `{"operation":"transfer","\u006fperation":"transfer"}`, reason.RequestMalformed, "", "once"},
		{"name twice in an entry", listWith(`{}`)[:len(listWith(`{}`))-2] + `,{"tag":"a","tag":"b"}]}`, reason.RequestMalformed, "", "once"},
		{"invalid UTF-8", "{\"operation\":\"\xff\"}", reason.RequestMalformed, "", "UTF-8"},
		{"lone surrogate", `{"operation":"\ud800"}`, reason.RequestMalformed, "", ""},
		{"raw line break in a string", "{\"operation\":\"a\nb\"}", reason.RequestMalformed, "", ""},

		// The operation and the ledger.
		{"no operation", `{}`, reason.FieldMissing, "operation", ""},
		{"operation is a number", `{"operation":1}`, reason.FieldInvalid, "operation", ""},
		{"operation is empty", `{"operation":""}`, reason.FieldInvalid, "operation", ""},
		{"unknown operation", `{"operation":"tranfser"}`, reason.OperationUnknown, "operation", "did you mean transfer?"},
		{"other spelling", `{"operation":"MRC402_Sell"}`, reason.OperationUnknown, "operation", "mrc402_sell"},
		{"not even near", `{"operation":"make me a coffee"}`, reason.OperationUnknown, "operation", "named like"},
		{"very long operation", `{"operation":"` + long(5000) + `"}`, reason.OperationUnknown, "operation", "named like"},
		{"dead operation", `{"operation":"exchange_from"}`, reason.OperationDead, "operation", ""},
		{"unknown ledger", transferWith(`{"ledger":"devnet"}`), reason.FieldInvalid, "ledger", "mainnet or testnet"},
		{"empty ledger", transferWith(`{"ledger":""}`), reason.FieldInvalid, "ledger", ""},
		{"ledger needed", with(newItems, `{"ledger":null}`), reason.FieldMissing, "ledger", "mainnet or testnet"},
		{"not on mainnet", with(trade, `{"ledger":"mainnet"}`), reason.OperationDead, "operation", "testnet"},
		{"testnet needed", with(trade, `{"ledger":null}`), reason.FieldMissing, "ledger", ""},
		{"field of the other ledger", with(saleItems, `{"ledger":"testnet"}`), reason.FieldUnknown, "mrc400id", "only mainnet"},

		// Fields.
		{"unknown field", transferWith(`{"tag":"x"}`), reason.FieldUnknown, "tag", "tags"},
		{"unknown field with a name that is none", transferWith(`{"-----BEGIN PRIVATE KEY-----":"x"}`), reason.FieldUnknown, "?", ""},
		{"the ledger's name of the key", transferWith(`{"checkkey":"{N}"}`), reason.FieldUnknown, "checkkey", "called nonce"},
		{"a path's name of the key", with(`{"operation":"token_burn","token":"1","amount":"1","nonce":"{N}"}`, `{"tkey":"{N}"}`), reason.FieldUnknown, "tkey", "called nonce"},
		{"missing field", transferWith(`{"to":null}`), reason.FieldMissing, "to", "Metacoin address"},
		{"missing key", transferWith(`{"nonce":null}`), reason.FieldMissing, "nonce", ""},
		{"empty field", transferWith(`{"to":""}`), reason.FieldInvalid, "to", "Metacoin address"},
		{"blank field", transferWith(`{"to":" \t"}`), reason.FieldInvalid, "to", ""},
		{"number", transferWith(`{"amount":100}`), reason.FieldInvalid, "amount", "quotes"},
		{"number in an optional field", transferWith(`{"unlockdate":0}`), reason.FieldInvalid, "unlockdate", "quotes"},
		{"null", `{"operation":"transfer","memo":null}`, reason.FieldInvalid, "memo", ""},
		{"boolean", transferWith(`{"memo":true}`), reason.FieldInvalid, "memo", ""},
		{"array where a string belongs", transferWith(`{"memo":["x"]}`), reason.FieldInvalid, "memo", ""},
		{"object where a string belongs", transferWith(`{"memo":{"x":"y"}}`), reason.FieldInvalid, "memo", ""},

		// What no value may hold.
		{"separator", transferWith(`{"memo":"a|b"}`), reason.FieldInvalid, "memo", "|"},
		{"separator, escaped", transferWith(`{"memo":"a\u007cb"}`), reason.FieldInvalid, "memo", "|"},
		{"separator in a signed text", with(update, `{"data":"a|b"}`), reason.FieldInvalid, "data", "|"},
		{"line break", transferWith(`{"memo":"a\nb"}`), reason.FieldInvalid, "memo", "control"},
		{"NUL", transferWith(`{"memo":"a\u0000b"}`), reason.FieldInvalid, "memo", "control"},
		{"DEL", transferWith(`{"memo":"a\u007fb"}`), reason.FieldInvalid, "memo", "control"},
		{"C1", transferWith(`{"memo":"a\u0085b"}`), reason.FieldInvalid, "memo", "control"},
		{"the node would trim it, the chaincode not", transferWith(`{"memo":"a\ufeff"}`), reason.FieldInvalid, "memo", "control"},

		// Kinds.
		{"address mistyped", transferWith(`{"to":"MTabcdefghijklmnopqrstuvwxyz0132806d9a54"}`), reason.FieldInvalid, "to", "mistyped"},
		{"address cut short", transferWith(`{"to":"MTabcdefghijklmnopqrstuvwxyz0123806d9a5"}`), reason.FieldInvalid, "to", "30 letters"},
		{"address with a capital checksum", transferWith(`{"to":"MTabcdefghijklmnopqrstuvwxyz0123806D9A54"}`), reason.FieldInvalid, "to", "mistyped"},
		{"payer is payee", transferWith(`{"to":"{A}"}`), reason.FieldInvalid, "to", "another"},
		{"token with a leading zero", transferWith(`{"token":"00"}`), reason.FieldInvalid, "token", "leading zeros"},
		{"token with a sign", transferWith(`{"token":"+1"}`), reason.FieldInvalid, "token", ""},
		{"token beyond int64", transferWith(`{"token":"9223372036854775808"}`), reason.FieldInvalid, "token", ""},
		{"amount zero", transferWith(`{"amount":"0"}`), reason.FieldInvalid, "amount", "above 0"},
		{"amount with a leading zero", transferWith(`{"amount":"007"}`), reason.FieldInvalid, "amount", "leading zeros"},
		{"amount with a sign", transferWith(`{"amount":"+5"}`), reason.FieldInvalid, "amount", "digits"},
		{"amount below zero", transferWith(`{"amount":"-5"}`), reason.FieldInvalid, "amount", "digits"},
		{"amount with a point", transferWith(`{"amount":"1.0"}`), reason.FieldInvalid, "amount", "digits"},
		{"amount with an exponent", transferWith(`{"amount":"1e3"}`), reason.FieldInvalid, "amount", "digits"},
		{"amount with blanks inside", transferWith(`{"amount":"1 000"}`), reason.FieldInvalid, "amount", "digits"},
		{"amount in other digits", transferWith(`{"amount":"١"}`), reason.FieldInvalid, "amount", "digits"},
		{"amount of 100 digits", transferWith(`{"amount":"` + long(100) + `"}`), reason.FieldInvalid, "amount", "1 to 99 digits"},
		{"time with a point", transferWith(`{"unlockdate":"1.5"}`), reason.FieldInvalid, "unlockdate", "seconds"},
		{"time below zero", transferWith(`{"unlockdate":"-1"}`), reason.FieldInvalid, "unlockdate", ""},
		{"key of 39 characters", transferWith(`{"nonce":"abcdefghijabcdefghijabcdefghijabcdefghi"}`), reason.FieldInvalid, "nonce", "40 letters"},
		{"key for another path", transferWith(`{"nonce":"../../../transfer/aaaaaaaaaaaaaaaaaaaaaaa"}`), reason.FieldInvalid, "nonce", ""},
		{"tags of 65 bytes", transferWith(`{"tags":"` + long(65) + `"}`), reason.FieldInvalid, "tags", "64 bytes"},
		{"tags of 33 characters, 66 bytes", transferWith(`{"tags":"` + strings.Repeat("é", 33) + `"}`), reason.FieldInvalid, "tags", "64 bytes"},
		{"memo of 2049 bytes", transferWith(`{"memo":"` + long(2049) + `"}`), reason.FieldInvalid, "memo", "2048"},
		{"id of another kind", with(update, `{"mrc402id":"{P}"}`), reason.FieldInvalid, "mrc402id", "MRC402_"},
		{"id with a slash", with(update, `{"mrc402id":"MRC402_0123456789abcdef0123456789abcde/x"}`), reason.FieldInvalid, "mrc402id", ""},
		{"item id without its project", `{"operation":"mrc401_melt","mrc401id":"{X}","nonce":"{N}"}`, reason.FieldInvalid, "mrc401id", ""},
		{"signcheck of a transaction's text", `{"operation":"signcheck","address":"{A}","data":"0 1"}`, reason.FieldInvalid, "data", "letters"},
		{"signcheck of 21 characters", `{"operation":"signcheck","address":"{A}","data":"` + long(21) + `"}`, reason.FieldInvalid, "data", "20"},
		{"commission above 10", with(sellOrder, `{"platform_commission":"10.01"}`), reason.FieldInvalid, "platform_commission", "0 to 10"},
		{"commission of 3 decimals", with(sellOrder, `{"platform_commission":"0.001"}`), reason.FieldInvalid, "platform_commission", "2 decimals"},
		{"commission without digits", with(sellOrder, `{"platform_commission":".5"}`), reason.FieldInvalid, "platform_commission", ""},
		{"commission with a point too many", with(sellOrder, `{"platform_commission":"1."}`), reason.FieldInvalid, "platform_commission", ""},
		{"commission with a leading zero", with(sellOrder, `{"platform_commission":"01"}`), reason.FieldInvalid, "platform_commission", ""},
		{"ftp", with(update, `{"url":"ftp://example.com"}`), reason.FieldInvalid, "url", "http"},
		{"no scheme", with(update, `{"url":"example.com"}`), reason.FieldInvalid, "url", "http"},
		{"host without a dot", with(update, `{"url":"https://example/"}`), reason.FieldInvalid, "url", ""},
		{"user name in a URL", with(update, `{"url":"https://example.com@evil.example"}`), reason.FieldInvalid, "url", ""},
		{"blank in a URL", with(update, `{"url":"https://example.com/a b"}`), reason.FieldInvalid, "url", ""},
		{"bad escape in a URL", with(update, `{"url":"https://example.com/%zz"}`), reason.FieldInvalid, "url", ""},
		{"URL of 256 bytes", with(update, `{"url":"https://example.com/`+long(236)+`"}`), reason.FieldInvalid, "url", "255"},
		{"country unknown", with(update, `{"copyright_registration_country":"XX"}`), reason.FieldInvalid, "copyright_registration_country", "ISO 3166"},
		{"country in small letters", with(update, `{"copyright_registration_country":"kr"}`), reason.FieldInvalid, "copyright_registration_country", ""},
		{"signature that is none", with(vote, `{"voteCreatorSign":"c2lnbmF0dXJl"}`), reason.FieldInvalid, "voteCreatorSign", "DER"},
		{"signature in base64url", with(vote, `{"voteCreatorSign":"MAYCAQECAQ__"}`), reason.FieldInvalid, "voteCreatorSign", "base64"},
		{"decimal other than 0", with(newArt, `{"decimal":"1"}`), reason.FieldInvalid, "decimal", ""},
		{"supply of 9 digits", with(newArt, `{"totalsupply":"100000000"}`), reason.FieldInvalid, "totalsupply", "99999999"},
		{"expiry of 13 digits", with(newArt, `{"expiredate":"1700000000000"}`), reason.FieldInvalid, "expiredate", ""},

		// Values together.
		{"token paid with itself", with(sellOrder, `{"token":"17"}`), reason.FieldInvalid, "token", "another"},
		{"trade unit that is no power of ten", with(sellOrder, `{"min_trade_unit":"20"}`), reason.FieldInvalid, "min_trade_unit", "1 or 10"},
		{"trade unit that does not divide", with(sellOrder, `{"min_trade_unit":"10000"}`), reason.FieldInvalid, "min_trade_unit", "multiple"},
		{"buy-now at the start price", with(auction, `{"auction_buynow_price":"10"}`), reason.FieldInvalid, "auction_buynow_price", "more than"},
		{"auction ends before it starts", with(auction, `{"auction_start_date":"20","auction_end_date":"19"}`), reason.FieldInvalid, "auction_end_date", "after"},
		{"poll ends before it starts", with(poll, `{"enddate":"9"}`), reason.FieldInvalid, "enddate", "startdate"},
		{"paid poll without a reward", with(poll, `{"reward":"0"}`), reason.FieldInvalid, "reward", "20"},
		{"paid poll for 101", with(poll, `{"maxrewardrecipient":"101"}`), reason.FieldInvalid, "maxrewardrecipient", "100"},
		{"buyer is creator", with(trade, `{"buyer":"{A}"}`), reason.FieldInvalid, "buyer", "another"},

		// What would make the text another operation's.
		{"set of data that reads as a transfer", with(sealed, `{"data":"{B}"}`), reason.FieldInvalid, "data", "transfer"},
		{"reference key that reads as an amount", with(sealed, `{"referencekey":"100"}`), reason.FieldInvalid, "referencekey", "_"},
		{"token name that reads as a list of items", `{"operation":"token_register","owner":"{A}","name":"[\"{P}_{X}\"]","nonce":"{N}"}`, reason.FieldInvalid, "name", "["},
		{"token URL that reads as a reward's address", `{"operation":"token_update","token":"17","url":"{B}","nonce":"{N}"}`, reason.FieldInvalid, "url", "http"},

		// JSON in a field.
		{"list as a number", with(listWith(`{}`), `{"transferlist":1}`), reason.FieldInvalid, "transferlist", "array"},
		{"list that is an object", with(listWith(`{}`), `{"transferlist":{}}`), reason.FieldInvalid, "transferlist", "array"},
		{"list text that is no JSON", with(listWith(`{}`), `{"transferlist":"[{]"}`), reason.FieldInvalid, "transferlist[0]", "JSON"},
		{"list text with an end too many", with(listWith(`{}`), `{"transferlist":"[{\"address\":\"{B}\",\"amount\":\"1\",\"unlockdate\":\"0\"}]]"}`), reason.FieldInvalid, "transferlist", ""},
		{"list text with a name twice", with(listWith(`{}`), `{"transferlist":"[{\"address\":\"{B}\",\"address\":\"{B}\"}]"}`), reason.FieldInvalid, "transferlist[0]", "once"},
		{"list text with a line break", with(listWith(`{}`), `{"transferlist":"[{\"address\":\"{B}\",\n\"amount\":\"1\",\"unlockdate\":\"0\"}]"}`), reason.FieldInvalid, "transferlist", "line breaks"},
		{"list text too long", with(listWith(`{}`), `{"transferlist":"[`+strings.Repeat(" ", 1<<20)+`]"}`), reason.FieldInvalid, "transferlist", "1048576"},
		{"empty list", with(listWith(`{}`), `{"transferlist":[]}`), reason.FieldInvalid, "transferlist", "at least 1"},
		{"list of 101", with(listWith(`{}`), `{"transferlist":`+someEntries(101)+`}`), reason.FieldInvalid, "transferlist", "at most 100"},
		{"entry that is a string", with(listWith(`{}`), `{"transferlist":["x"]}`), reason.FieldInvalid, "transferlist[0]", "object"},
		{"entry without an amount", listWith(`{"amount":null}`), reason.FieldMissing, "transferlist[0].amount", ""},
		{"entry without a date", listWith(`{"unlockdate":null}`), reason.FieldMissing, "transferlist[0].unlockdate", ""},
		{"entry of amount zero", listWith(`{"amount":"0"}`), reason.FieldInvalid, "transferlist[0].amount", "above 0"},
		{"entry with a number", listWith(`{"amount":5}`), reason.FieldInvalid, "transferlist[0].amount", "quotes"},
		{"entry with a member too many", listWith(`{"tokenid":"0"}`), reason.FieldUnknown, "transferlist[0].tokenid", ""},
		{"entry with a member in capitals", listWith(`{"Memo":"x"}`), reason.FieldUnknown, "transferlist[0].Memo", ""},
		{"entry to the payer", listWith(`{"address":"{A}"}`), reason.FieldInvalid, "transferlist[0].address", "another"},
		{"entry with a bad address", listWith(`{"address":"{B} "}`), reason.FieldInvalid, "transferlist[0].address", "30 letters"},
		{"entry with an address once more", listWith(`{"address":"{C}"}`), reason.FieldInvalid, "transferlist[1].address", "once"},
		{"entry with a separator", listWith(`{"memo":"a|b"}`), reason.FieldInvalid, "transferlist[0].memo", "|"},
		{"entry with an escaped separator", listWith(`{"memo":"a\u007cb"}`), reason.FieldInvalid, "transferlist[0].memo", "|"},
		{"entry with a line break", listWith(`{"memo":"a\nb"}`), reason.FieldInvalid, "transferlist[0].memo", "control"},
		{"entry with a tag of 65 bytes", listWith(`{"tag":"` + long(65) + `"}`), reason.FieldInvalid, "transferlist[0].tag", "64"},
		{"entry with a memo of 2049 bytes", listWith(`{"memo":"` + long(2049) + `"}`), reason.FieldInvalid, "transferlist[0].memo", "2048"},
		{"reward without a tag", with(reward, `{"userlist":[{"address":"{B}","amount":"1","memo":""}]}`), reason.FieldMissing, "userlist[0].tag", ""},
		{"reward with a separator in its tag", with(reward, `{"userlist":[{"address":"{B}","amount":"1","tag":"1|{C}","memo":""}]}`), reason.FieldInvalid, "userlist[0].tag", "|"},
		{"reward to the payer", with(reward, `{"userlist":[{"address":"{A}","amount":"1","tag":"","memo":""}]}`), reason.FieldInvalid, "userlist[0].address", "another"},
		{"reward twice to one", with(reward, `{"userlist":[{"address":"{B}","amount":"1","tag":"","memo":""},{"address":"{B}","amount":"1","tag":"","memo":""}]}`), reason.FieldInvalid, "userlist[1].address", "once"},
		{"item twice", with(newItems, `{"itemdata":[`+item+`,`+item+`]}`), reason.FieldInvalid, "itemdata[1].item_id", "once"},
		{"item's spelling of the other ledger", with(newItems, `{"itemdata":[`+with(item, `{"transferable":"Temprary"}`)+`]}`), reason.FieldInvalid, "itemdata[0].transferable", "Temporary"},
		{"item's fee of 100 percent", with(newItems, `{"itemdata":[`+with(item, `{"sell_fee":"100"}`)+`]}`), reason.FieldInvalid, "itemdata[0].sell_fee", "99.9999"},
		{"item with six shareholders", with(newItems, `{"itemdata":[`+with(item, `{"shareholder":`+holders(6)+`}`)+`]}`), reason.FieldInvalid, "itemdata[0].shareholder", "at most 5"},
		{"shareholder with a bad address", with(newItems, `{"itemdata":[`+with(item, `{"shareholder":{"x":"1"}}`)+`]}`), reason.FieldInvalid, "itemdata[0].shareholder[0]", "30 letters"},
		{"shareholder with a number", with(newItems, `{"itemdata":[`+with(item, `{"shareholder":{"{B}":1}}`)+`]}`), reason.FieldInvalid, "itemdata[0].shareholder.{B}", "quotes"},
		{"shareholders beyond the form's limit", with(newArt, `{"shareholder":"{`+strings.Repeat(" ", 1024)+`}"}`), reason.FieldInvalid, "shareholder", "1024"},
		{"item of another project", with(saleItems, `{"itemdata":[{"id":"MRC400_1123456789abcdef0123456789abcdef0_{X}","amount":"1","token":"0"}]}`), reason.FieldInvalid, "itemdata[0]", "one project"},
		{"item for 81 digits", with(saleItems, `{"itemdata":[{"id":"{P}_{X}","amount":"`+long(81)+`","token":"0"}]}`), reason.FieldInvalid, "itemdata[0].amount", "80"},
		{"item id twice", with(itemIDs, `{"itemdata":["{P}_{X}","{P}_{X}"]}`), reason.FieldInvalid, "itemdata[1]", "once"},
		{"item id that is an object", with(itemIDs, `{"itemdata":[{"id":"{P}_{X}"}]}`), reason.FieldInvalid, "itemdata[0]", "string"},
		{"answer as a string", with(vote, `{"answer":[{"answer":"1"}]}`), reason.FieldInvalid, "answer[0].answer", "number"},
		{"answer zero", with(vote, `{"answer":[{"answer":0}]}`), reason.FieldInvalid, "answer[0].answer", "1 to 4"},
		{"answer with an exponent", with(vote, `{"answer":[{"answer":1e0}]}`), reason.FieldInvalid, "answer[0].answer", "digits"},
		{"answer minus zero", with(vote, `{"answer":[{"answer":1,"subanswer":-0}]}`), reason.FieldInvalid, "answer[0].subanswer", "digits"},
		{"poll with five answers to a question", with(poll, `{"query":[{"question":"q","item":[{"answer":"1"},{"answer":"2"},{"answer":"3"},{"answer":"4"},{"answer":"5"}]}]}`), reason.FieldInvalid, "query[0].item", "at most 4"},
		{"poll with an empty question", with(poll, `{"query":[{"question":""}]}`), reason.FieldInvalid, "query[0].question", ""},
		{"partner of an unknown kind", with(project, `{"partner":{"{B}":"owner"}}`), reason.FieldInvalid, "partner.{B}", "partner or seller"},
		{"auction's buy-now below the start", `{"operation":"mrc401_auction","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":[{"id":"{P}_{X}","end":1,"token":"0","bidding":"1","start":"5","buynow":"4"}],"nonce":"{N}"}`, reason.FieldInvalid, "itemdata[0].buynow", "at least"},
		{"auction's end as a string", `{"operation":"mrc401_auction","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":[{"id":"{P}_{X}","end":"1","token":"0","bidding":"1","start":"5"}],"nonce":"{N}"}`, reason.FieldInvalid, "itemdata[0].end", "number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx, err := metacoin.Parse([]byte(expand(c.request)))
			if tx != nil {
				t.Fatalf("accepted, text %q", tx.Text())
			}
			r := refusal(t, err)
			if r.Code != c.code || r.Field != expand(c.field) {
				t.Errorf("got %s at %q, want %s at %q: %v", r.Code, r.Field, c.code, expand(c.field), r)
			}
			if !strings.Contains(r.Hint, c.hint) {
				t.Errorf("hint %q does not say %q", r.Hint, c.hint)
			}
		})
	}
}

// someEntries is a transferlist of n.
func someEntries(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = `{"address":"` + numbered(i) + `","amount":"1","unlockdate":"0"}`
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// holders is an object of n shareholders.
func holders(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = `"` + numbered(i) + `":"1"`
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// numbered is an address for each number.
func numbered(i int) string {
	body := fmt.Sprintf("%030d", i+1)
	return fmt.Sprintf("MT%s%08x", body, crc32.ChecksumIEEE([]byte(body)))
}

func refusal(t *testing.T, err error) *reason.Refusal {
	t.Helper()
	var r *reason.Refusal
	if !errors.As(err, &r) || r == nil {
		t.Fatalf("error %v is no refusal", err)
	}
	if r.Message == "" || r.Hint == "" {
		t.Errorf("refusal without message or hint: %v", r)
	}
	return r
}

// TestEachFieldRefused spoils every field of every operation in turn.
func TestEachFieldRefused(t *testing.T) {
	fields := map[string]metacoin.OperationField{}
	for _, op := range metacoin.Operations() {
		for _, f := range op.Fields {
			fields[op.Name+" "+op.Ledger+" "+f.Name] = f
		}
	}
	for _, c := range accepted {
		request := "{" + c.request + "}"
		operation := parse(t, c.request).Operation()
		var ledger string
		json.Unmarshal(decode(request)["ledger"], &ledger)
		for name := range decode(request) {
			f, ok := fields[operation+" "+ledger+" "+name]
			if !ok {
				f, ok = fields[operation+"  "+name]
			}
			if !ok {
				continue // operation and ledger themselves
			}
			for what, value := range map[string]string{
				"missing":           `null`,
				"number":            `{"v":7}`,
				"separator":         `{"v":"a|b"}`,
				"control character": `{"v":"a\u0001b"}`,
				"secret":            `{"v":"----SECRET|MARKER\u0001----"}`,
			} {
				change := strings.Replace(value, `"v"`, `"`+name+`"`, 1)
				if value == `null` {
					change = `{"` + name + `":null}`
				}
				tx, err := metacoin.Parse([]byte(with(request, change)))
				if what == "missing" && !f.Required {
					if err != nil {
						t.Errorf("%s without %s: %v", operation, name, err)
					}
					continue
				}
				if tx != nil {
					t.Errorf("%s with %s as %s: accepted", operation, name, what)
					continue
				}
				r := refusal(t, err)
				want := reason.FieldInvalid
				if what == "missing" {
					want = reason.FieldMissing
				}
				if r.Code != want || r.Field != name {
					t.Errorf("%s with %s as %s: %v", operation, name, what, err)
				}
				if strings.Contains(err.Error(), "MARKER") {
					t.Errorf("%s: the refusal repeats a value: %v", operation, err)
				}
			}
		}
	}
}

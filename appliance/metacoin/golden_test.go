package metacoin_test

import (
	"slices"
	"strings"
	"testing"

	"signdrop/appliance/metacoin"
)

// expand writes a test's short names out.
var expand = strings.NewReplacer(
	"{A}", "MTiiiiiiiiiiiiMETACOINiiiiiiiiii79c3496e", // the ledger's own sample
	"{B}", "MTabcdefghijklmnopqrstuvwxyz0123806d9a54",
	"{C}", "MT00000000000000000000000000000077e5db82",
	"{N}", "n0NcEn0NcEn0NcEn0NcEn0NcEn0NcEn0NcEn0NcE",
	"{M}", "OtherNonceOtherNonceOtherNonceOtherNonce",
	"{P}", "MRC400_0123456789abcdef0123456789abcdef0",
	"{X}", "0000000000000000000000000000000000000001", // an item's own id
	"{Y}", "0000000000000000000000000000000000000002",
	"{T}", "MRC402_0123456789abcdef0123456789abcdef0",
	"{D}", "DEX010_0123456789abcdef0123456789abcdef0",
	"{E}", "DEX402_0123456789abcdef0123456789abcdef0",
	"{V}", "MRC030_0123456789abcdef0123456789abcdef0",
	"{S}", "MAYCAQECAQE=", // another party's signature
).Replace

// accepted has one request for every operation that can be signed, with what
// must come of it. The texts were put together by hand from the order in which
// the chaincode joins its arguments.
var accepted = []struct {
	request string // without the braces around it
	text    string
	signer  string
	also    string // AlsoMeans, joined with blanks
	submit  string // of the signature SIG, "" for none
}{
	{
		`"operation":"transfer","from":"{A}","to":"{B}","token":"0","amount":"100000000","nonce":"{N}"`,
		`{A}|{B}|0|100000000|{N}`, `{A}`, `mrc100_payment`,
		`{"method":"POST","path":"/transfer","form":{"from":"{A}","to":"{B}","token":"0","amount":"100000000","checkkey":"{N}","signature":"SIG"}}`,
	},
	{ // all optional fields; an old wallet's key; the order of the members plays no part
		`"memo":"m","tags":"t","unlockdate":"1700000000","nonce":"1690000000","amount":"1","token":"17","to":"{B}","from":"{A}","ledger":"mainnet","operation":"transfer"`,
		`{A}|{B}|17|1|1690000000`, `{A}`, `mrc100_payment`,
		`{"method":"POST","path":"/transfer","form":{"from":"{A}","to":"{B}","token":"17","amount":"1","unlockdate":"1700000000","tags":"t","memo":"m","checkkey":"1690000000","signature":"SIG"}}`,
	},
	{ // a list as text is signed as it stands, inner blanks included
		`"operation":"multitransfer","from":"{A}","transferlist":" [ {\"address\":\"{B}\", \"amount\":\"5\",\"unlockdate\":\"0\"}] ","token":"0","nonce":"{N}"`,
		`{A}|[ {"address":"{B}", "amount":"5","unlockdate":"0"}]|0|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/multitransfer","form":{"from":"{A}","transferlist":"[ {\"address\":\"{B}\", \"amount\":\"5\",\"unlockdate\":\"0\"}]","token":"0","checkkey":"{N}","signature":"SIG"}}`,
	},
	{ // a list as an array loses the blanks between its tokens and nothing else
		`"operation":"multitransfer","from":"{A}","transferlist":[ {"address": "{B}", "amount": "5", "unlockdate": "0", "tag": "a b", "memo": "\u00e9 \"x\""},
		 {"memo":"", "unlockdate":"1700000000", "amount":"7", "address":"{C}"} ],"token":"0","nonce":"{N}"`,
		`{A}|[{"address":"{B}","amount":"5","unlockdate":"0","tag":"a b","memo":"\u00e9 \"x\""},{"memo":"","unlockdate":"1700000000","amount":"7","address":"{C}"}]|0|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/multitransfer","form":{"from":"{A}","transferlist":"[{\"address\":\"{B}\",\"amount\":\"5\",\"unlockdate\":\"0\",\"tag\":\"a b\",\"memo\":\"\\u00e9 \\\"x\\\"\"},{\"memo\":\"\",\"unlockdate\":\"1700000000\",\"amount\":\"7\",\"address\":\"{C}\"}]","token":"0","checkkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"signcheck","address":"{A}","data":"Challenge1"`,
		`Challenge1`, `{A}`, ``, ``,
	},
	{
		`"operation":"token_register","owner":"{A}","name":"My token","nonce":"{N}"`,
		`{A}|My token|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/token/{N}","form":{"signature":"SIG"}}`,
	},
	{ // what is left out is signed, and sent, as empty
		`"operation":"token_update","token":"17","info":"about","nonce":"{N}"`,
		`17||about||{N}`, ``, ``,
		`{"method":"PUT","path":"/token/update/{N}","form":{"token":"17","url":"","info":"about","image":"","signature":"SIG"}}`,
	},
	{
		`"operation":"token_burn","token":"17","amount":"100","memo":"m","nonce":"{N}"`,
		`17|100|{N}`, ``, `token_increase`,
		`{"method":"PUT","path":"/token/burn/{N}","form":{"token":"17","amount":"100","memo":"m","signature":"SIG"}}`,
	},
	{
		`"operation":"token_increase","token":"17","amount":"100","nonce":"{N}"`,
		`17|100|{N}`, ``, `token_burn`,
		`{"method":"PUT","path":"/token/increase/{N}","form":{"token":"17","amount":"100","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_sell","address":"{A}","amount":"1000","mrc010id":"17","price":"25","token":"0","platform_name":"Shop","platform_url":"https://shop.example.com/x?y=1","platform_address":"{B}","platform_commission":"0.50","min_trade_unit":"100","nonce":"{N}"`,
		`{A}|1000|17|25|0|Shop|https://shop.example.com/x?y=1|{B}|0.50|{N}`, `{A}`, `mrc010_reqsell`,
		`{"method":"POST","path":"/token/sell/17","form":{"address":"{A}","amount":"1000","price":"25","token":"0","platform_name":"Shop","platform_url":"https://shop.example.com/x?y=1","platform_address":"{B}","platform_commission":"0.50","min_trade_unit":"100","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_reqsell","address":"{A}","amount":"1000","mrc010id":"17","price":"25","token":"0","nonce":"{N}"`,
		`{A}|1000|17|25|0|||||{N}`, `{A}`, `mrc010_sell`,
		`{"method":"POST","path":"/token/reqsell/17","form":{"address":"{A}","amount":"1000","price":"25","token":"0","platform_name":"","platform_url":"","platform_address":"","platform_commission":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_unsell","mrc010dexid":"{D}","nonce":"{N}"`,
		`{D}|{N}`, ``, `mrc010_unreqsell mrc010_unauction`,
		`{"method":"POST","path":"/token/unsell/{D}","form":{"tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_unreqsell","mrc010dexid":"{D}","nonce":"{N}"`,
		`{D}|{N}`, ``, `mrc010_unsell mrc010_unauction`,
		`{"method":"POST","path":"/token/unreqsell/{D}","form":{"tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_buy","mrc010dexid":"{D}","address":"{A}","amount":"9","nonce":"{N}"`,
		`{D}|{A}|9|{N}`, `{A}`, `mrc010_acceptreqsell mrc010_bid`,
		`{"method":"POST","path":"/token/buy/{D}","form":{"address":"{A}","amount":"9","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_acceptreqsell","mrc010dexid":"{D}","address":"{A}","amount":"9","nonce":"{N}"`,
		`{D}|{A}|9|{N}`, `{A}`, `mrc010_buy mrc010_bid`,
		`{"method":"POST","path":"/token/acceptreqsell/{D}","form":{"address":"{A}","amount":"9","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc010_auction","address":"{A}","amount":"9","mrc010id":"17","auction_start_price":"10","token":"0","auction_bidding_unit":"2","auction_buynow_price":"11","auction_start_date":"1700000000","auction_end_date":"1700003600","platform_name":"Shop","platform_url":"http://localhost:8080/","platform_address":"{B}","platform_commission":"10.00","nonce":"{N}"`,
		`{A}|9|17|10|0|2|11|1700000000|1700003600|Shop|http://localhost:8080/|{B}|10.00|{N}`, `{A}`, ``, ``,
	},
	{
		`"operation":"mrc010_unauction","mrc010dexid":"{D}","nonce":"{N}"`,
		`{D}|{N}`, ``, `mrc010_unsell mrc010_unreqsell`, ``,
	},
	{
		`"operation":"mrc010_bid","mrc010dexid":"{D}","address":"{A}","amount":"9","nonce":"{N}"`,
		`{D}|{A}|9|{N}`, `{A}`, `mrc010_buy mrc010_acceptreqsell`, ``,
	},
	{
		`"operation":"mrc020_set","owner":"{A}","algorithm":"AES","data":"sealed","publickey":"key","opendate":"1700000000","referencekey":"my_ref","nonce":"{N}"`,
		`{A}|sealed|1700000000|my_ref|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc020","form":{"owner":"{A}","algorithm":"AES","data":"sealed","publickey":"key","opendate":"1700000000","referencekey":"my_ref","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc030_create","owner":"{A}","title":"Poll","startdate":"1700000000","enddate":"1700003600","reward":"0","rewardtoken":"0","maxrewardrecipient":"100","rewardtype":"10","url":"https://example.com","query":[{"question":"Which?","item":[{"answer":"This"},{"answer":"That","subquery":"Why?","subitem":[{"subanswer":"So"}]}]}],"sign_need":"1","nonce":"{N}"`,
		`{A}|Poll|0|0|100|10|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc030","form":{"owner":"{A}","title":"Poll","description":"","startdate":"1700000000","enddate":"1700003600","reward":"0","rewardtoken":"0","maxrewardrecipient":"100","rewardtype":"10","url":"https://example.com","query":"[{\"question\":\"Which?\",\"item\":[{\"answer\":\"This\"},{\"answer\":\"That\",\"subquery\":\"Why?\",\"subitem\":[{\"subanswer\":\"So\"}]}]}]","sign_need":"1","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc030_join_voter","mrc030id":"{V}","voter":"{A}","answer":[{"answer":1},{"answer":2,"subanswer":1}]`,
		`{A}|{V}`, `{A}`, `mrc030_join_creator`,
		`{"method":"POST","path":"/mrc030/{V}","form":{"mrc030id":"{V}","voter":"{A}","answer":"[{\"answer\":1},{\"answer\":2,\"subanswer\":1}]","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc030_join_creator","mrc030id":"{V}","voter":"{A}","answer":[{"answer":1}]`,
		`{A}|{V}`, ``, `mrc030_join_voter`,
		`{"method":"POST","path":"/mrc030/{V}","form":{"mrc030id":"{V}","voter":"{A}","answer":"[{\"answer\":1}]","voteCreatorSign":"SIG"},"missing":["signature"]}`,
	},
	{
		`"operation":"mrc030_join_creator","mrc030id":"{V}","voter":"{A}","answer":[{"answer":1}],"signature":"{S}"`,
		`{A}|{V}`, ``, `mrc030_join_voter`,
		`{"method":"POST","path":"/mrc030/{V}","form":{"mrc030id":"{V}","voter":"{A}","answer":"[{\"answer\":1}]","signature":"{S}","voteCreatorSign":"SIG"}}`,
	},
	{
		`"operation":"mrc100_payment","address":"{A}","amount":"5","to":"{B}","token":"17","gameid":"g","memo":"level 3","nonce":"{N}"`,
		`{A}|{B}|17|5|{N}`, `{A}`, `transfer`,
		`{"method":"POST","path":"/mrc100/payment","form":{"to":"{B}","token":"17","tag":"","userlist":"[{\"address\":\"{A}\",\"amount\":\"5\",\"memo\":\"level 3\",\"signature\":\"SIG\",\"tkey\":\"{N}\"}]","gameid":"g","gamememo":""}}`,
	},
	{ // the values are joined, not the JSON: escapes are decoded, and a tag may be empty
		`"operation":"mrc100_reward","from":"{A}","token":"17","userlist":[{"address":"{B}","amount":"5","tag":"\u0031st","memo":"m"},{"address":"{C}","amount":"0","tag":"","memo":""}],"gameid":"g","nonce":"{N}"`,
		`17|{B}|5|1st|{C}|0||{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc100/reward","form":{"from":"{A}","token":"17","userlist":"[{\"address\":\"{B}\",\"amount\":\"5\",\"tag\":\"\\u0031st\",\"memo\":\"m\"},{\"address\":\"{C}\",\"amount\":\"0\",\"tag\":\"\",\"memo\":\"\"}]","gameid":"g","gamememo":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{ // to one player: token|url|info|image|nonce has the same form
		`"operation":"mrc100_reward","from":"{A}","token":"17","userlist":[{"address":"{B}","amount":"5","tag":"t","memo":"m"}],"nonce":"{N}"`,
		`17|{B}|5|t|{N}`, `{A}`, `token_update`,
		`{"method":"POST","path":"/mrc100/reward","form":{"from":"{A}","token":"17","userlist":"[{\"address\":\"{B}\",\"amount\":\"5\",\"tag\":\"t\",\"memo\":\"m\"}]","gameid":"","gamememo":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc100_log","token":"17","logger":"{A}","log":"what happened","nonce":"{N}"`,
		`17|{A}|what happened|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc100/log/{N}","form":{"token":"17","logger":"{A}","log":"what happened","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc400_create","ledger":"mainnet","owner":"{A}","name":"Proj","url":"https://example.com/u","imageurl":"https://example.com/i","allowtoken":"0","category":"art","description":"about","itemurl":"https://example.com/iu","itemimageurl":"https://example.com/ii","data":"d","nonce":"{N}"`,
		`{A}|Proj|https://example.com/u|https://example.com/i|art|https://example.com/iu|https://example.com/ii|d|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc400","form":{"owner":"{A}","name":"Proj","url":"https://example.com/u","imageurl":"https://example.com/i","allowtoken":"0","category":"art","description":"about","itemurl":"https://example.com/iu","itemimageurl":"https://example.com/ii","data":"d","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc400_create","ledger":"testnet","owner":"{A}","name":"Proj","url":"https://example.com/u","imageurl":"https://example.com/i","category":"art","socialmedia":{"x":"https://x.com/p"},"partner":{"{B}": "seller"},"nonce":"{N}"`,
		`{A}|Proj|https://example.com/u|https://example.com/i|art|||{"{B}":"seller"}||{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc400","form":{"owner":"{A}","name":"Proj","url":"https://example.com/u","imageurl":"https://example.com/i","itemurl":"","itemimageurl":"","category":"art","socialmedia":"{\"x\":\"https://x.com/p\"}","partner":"{\"{B}\":\"seller\"}","data":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc400_update","ledger":"mainnet","mrc400id":"{P}","url":"https://example.com/u","imageurl":"https://example.com/i","allowtoken":"0","category":"art","description":"about","nonce":"{N}"`,
		`{P}||https://example.com/u|https://example.com/i|art|about||||{N}`, ``, ``,
		`{"method":"PUT","path":"/mrc400/{P}","form":{"name":"","url":"https://example.com/u","imageurl":"https://example.com/i","allowtoken":"0","category":"art","description":"about","itemurl":"","itemimageurl":"","data":"","tkey":"{N}","socialmedia":"","partner":"","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc400_update","ledger":"testnet","mrc400id":"{P}","name":"Proj","url":"https://example.com/u","imageurl":"https://example.com/i","allowtoken":"0","category":"art","description":"about","data":"d","nonce":"{N}"`,
		`{P}|Proj|https://example.com/u|https://example.com/i|art||||d|{N}`, ``, ``,
		`{"method":"PUT","path":"/mrc400/{P}","form":{"name":"Proj","url":"https://example.com/u","imageurl":"https://example.com/i","allowtoken":"0","itemurl":"","itemimageurl":"","category":"art","description":"about","socialmedia":"","partner":"","data":"d","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_create","ledger":"mainnet","mrc400id":"{P}","creator":"{A}","itemdata":[{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"99.9999","transferable":"Temprary","sell_fee":"0"}],"nonce":"{N}"`,
		`{P}|[{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"99.9999","transferable":"Temprary","sell_fee":"0"}]|{N}`, ``, `mrc401_update`,
		`{"method":"POST","path":"/mrc401/{P}","form":{"creator":"{A}","itemdata":"[{\"item_id\":\"{X}\",\"groupid\":\"g\",\"initial_reserve\":\"0\",\"initial_token\":\"0\",\"melting_fee\":\"99.9999\",\"transferable\":\"Temprary\",\"sell_fee\":\"0\"}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_create","ledger":"testnet","mrc400id":"{P}","creator":"{A}","itemdata":[{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0.5","transferable":"Temporary","sell_fee":"0","shareholder":{"{B}":"9.99"}}],"nonce":"{N}"`,
		`{P}|[{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0.5","transferable":"Temporary","sell_fee":"0","shareholder":{"{B}":"9.99"}}]|{N}`, `{A}`, `mrc401_update`,
		`{"method":"POST","path":"/mrc401/{P}","form":{"creator":"{A}","itemdata":"[{\"item_id\":\"{X}\",\"groupid\":\"g\",\"initial_reserve\":\"0\",\"initial_token\":\"0\",\"melting_fee\":\"0.5\",\"transferable\":\"Temporary\",\"sell_fee\":\"0\",\"shareholder\":{\"{B}\":\"9.99\"}}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_update","ledger":"mainnet","mrc400id":"{P}","creator":"{A}","itemdata":[{"item_id":"{X}","melting_fee":"0","transferable":"Bound","sell_fee":"1.25"}],"nonce":"{N}"`,
		`{P}|[{"item_id":"{X}","melting_fee":"0","transferable":"Bound","sell_fee":"1.25"}]|{N}`, ``, `mrc401_create`,
		`{"method":"PUT","path":"/mrc401/{P}","form":{"creator":"{A}","itemdata":"[{\"item_id\":\"{X}\",\"melting_fee\":\"0\",\"transferable\":\"Bound\",\"sell_fee\":\"1.25\"}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_update","ledger":"testnet","mrc400id":"{P}","creator":"{A}","itemdata":[{"item_id":"{X}","item_url":"","melting_fee":"0","transferable":"Permanent","sell_fee":"1"}],"nonce":"{N}"`,
		`{P}|[{"item_id":"{X}","item_url":"","melting_fee":"0","transferable":"Permanent","sell_fee":"1"}]|{N}`, `{A}`, `mrc401_create`,
		`{"method":"PUT","path":"/mrc401/{P}","form":{"creator":"{A}","itemdata":"[{\"item_id\":\"{X}\",\"item_url\":\"\",\"melting_fee\":\"0\",\"transferable\":\"Permanent\",\"sell_fee\":\"1\"}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_transfer","mrc401id":"{P}_{X}","fromAddr":"{A}","toAddr":"{B}","nonce":"{N}"`,
		`{A}|{B}|{P}_{X}|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc401/transfer/{P}_{X}","form":{"fromAddr":"{A}","toAddr":"{B}","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_sell","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":[{"id":"{P}_{X}","amount":"9","token":"0"},{"id":"{P}_{Y}","amount":"9","token":"0"}],"nonce":"{N}"`,
		`{A}|[{"id":"{P}_{X}","amount":"9","token":"0"},{"id":"{P}_{Y}","amount":"9","token":"0"}]|{N}`, `{A}`, `mrc401_unsell mrc401_auction mrc401_unauction token_register`,
		`{"method":"POST","path":"/mrc401/sell","form":{"seller":"{A}","mrc400id":"{P}","itemdata":"[{\"id\":\"{P}_{X}\",\"amount\":\"9\",\"token\":\"0\"},{\"id\":\"{P}_{Y}\",\"amount\":\"9\",\"token\":\"0\"}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_sell","ledger":"testnet","seller":"{A}","itemdata":[{"id":"{P}_{X}","amount":"9","token":"0","platform_name":"Shop"}],"nonce":"{N}"`,
		`{A}|[{"id":"{P}_{X}","amount":"9","token":"0","platform_name":"Shop"}]|{N}`, `{A}`, `mrc401_unsell mrc401_auction mrc401_unauction token_register`,
		`{"method":"POST","path":"/mrc401/sell","form":{"seller":"{A}","itemdata":"[{\"id\":\"{P}_{X}\",\"amount\":\"9\",\"token\":\"0\",\"platform_name\":\"Shop\"}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_unsell","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":["{P}_{X}"],"nonce":"{N}"`,
		`{A}|["{P}_{X}"]|{N}`, `{A}`, `mrc401_sell mrc401_auction mrc401_unauction token_register`,
		`{"method":"POST","path":"/mrc401/unsell","form":{"seller":"{A}","mrc400id":"{P}","itemdata":"[\"{P}_{X}\"]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_unsell","ledger":"testnet","seller":"{A}","itemdata":"[\"{P}_{X}\",\"{P}_{Y}\"]","nonce":"{N}"`,
		`{A}|["{P}_{X}","{P}_{Y}"]|{N}`, `{A}`, `mrc401_sell mrc401_auction mrc401_unauction token_register`,
		`{"method":"POST","path":"/mrc401/unsell","form":{"seller":"{A}","itemdata":"[\"{P}_{X}\",\"{P}_{Y}\"]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_buy","mrc401id":"{P}_{X}","buyer":"{A}","nonce":"{N}"`,
		`{P}_{X}|{N}`, `{A}`, `mrc401_melt`,
		`{"method":"POST","path":"/mrc401/buy/{P}_{X}","form":{"buyer":"{A}","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_melt","mrc401id":"{P}_{X}","nonce":"{N}"`,
		`{P}_{X}|{N}`, ``, `mrc401_buy`,
		`{"method":"POST","path":"/mrc401/melt/{P}_{X}","form":{"tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_auction","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":[{"id":"{P}_{X}","end":1700000000,"token":"0","bidding":"1","start":"5","buynow":"0"}],"nonce":"{N}"`,
		`{A}|[{"id":"{P}_{X}","end":1700000000,"token":"0","bidding":"1","start":"5","buynow":"0"}]|{N}`, `{A}`, `mrc401_sell mrc401_unsell mrc401_unauction token_register`,
		`{"method":"POST","path":"/mrc401/auction","form":{"seller":"{A}","mrc400id":"{P}","itemdata":"[{\"id\":\"{P}_{X}\",\"end\":1700000000,\"token\":\"0\",\"bidding\":\"1\",\"start\":\"5\",\"buynow\":\"0\"}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_auction","ledger":"testnet","seller":"{A}","itemdata":[{"id":"{P}_{X}","token":"0","auction_bidding_unit":"1","auction_start_price":"5","auction_buynow_price":"5","auction_start_date":0,"auction_end_date":1700000000}],"nonce":"{N}"`,
		`{A}|[{"id":"{P}_{X}","token":"0","auction_bidding_unit":"1","auction_start_price":"5","auction_buynow_price":"5","auction_start_date":0,"auction_end_date":1700000000}]|{N}`, `{A}`, `mrc401_sell mrc401_unsell mrc401_unauction token_register`,
		`{"method":"POST","path":"/mrc401/auction","form":{"seller":"{A}","itemdata":"[{\"id\":\"{P}_{X}\",\"token\":\"0\",\"auction_bidding_unit\":\"1\",\"auction_start_price\":\"5\",\"auction_buynow_price\":\"5\",\"auction_start_date\":0,\"auction_end_date\":1700000000}]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_unauction","ledger":"mainnet","seller":"{A}","mrc400id":"{P}","itemdata":["{P}_{X}"],"nonce":"{N}"`,
		`{A}|["{P}_{X}"]|{N}`, `{A}`, `mrc401_sell mrc401_unsell mrc401_auction token_register`,
		`{"method":"POST","path":"/mrc401/unauction","form":{"seller":"{A}","mrc400id":"{P}","itemdata":"[\"{P}_{X}\"]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_unauction","ledger":"testnet","seller":"{A}","itemdata":["{P}_{X}"],"nonce":"{N}"`,
		`{A}|["{P}_{X}"]|{N}`, `{A}`, `mrc401_sell mrc401_unsell mrc401_auction token_register`,
		`{"method":"POST","path":"/mrc401/unauction","form":{"seller":"{A}","itemdata":"[\"{P}_{X}\"]","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_bid","ledger":"mainnet","mrc401id":"{P}_{X}","buyer":"{A}","amount":"9","token":"17","nonce":"{N}"`,
		`{P}_{X}|9|17|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc401/bid/{P}_{X}","form":{"buyer":"{A}","amount":"9","token":"17","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_bid","ledger":"testnet","mrc401id":"{P}_{X}","buyer":"{A}","amount":"9","nonce":"{N}"`,
		`{P}_{X}|9|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc401/bid/{P}_{X}","form":{"buyer":"{A}","amount":"9","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_create","creator":"{A}","name":"Art","creatorcommission":"2.5","totalsupply":"100","decimal":"0","url":"https://example.com/u","imageurl":"https://example.com/i","shareholder":{"{B}":"1.0"},"initialreserve":{"0":"5"},"expiredate":"0","data":"d","information":"i","socialmedia":"s","copyright_registration_country":"KR","copyright_registrar":"r","copyright_registration_number":"7","nonce":"{N}"`,
		`{A}|Art|2.5|100|0|https://example.com/u|https://example.com/i|{"{B}":"1.0"}|{"0":"5"}|0|d|i|s|KR|r|7|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc402","form":{"creator":"{A}","name":"Art","creatorcommission":"2.5","totalsupply":"100","decimal":"0","url":"https://example.com/u","imageurl":"https://example.com/i","shareholder":"{\"{B}\":\"1.0\"}","initialreserve":"{\"0\":\"5\"}","expiredate":"0","data":"d","information":"i","socialmedia":"s","copyright_registration_country":"KR","copyright_registrar":"r","copyright_registration_number":"7","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_update","mrc402id":"{T}","url":"https://example.com/u","data":"d","nonce":"{N}"`,
		`{T}|https://example.com/u|d||||||{N}`, ``, ``,
		`{"method":"PUT","path":"/mrc402/update/{T}","form":{"url":"https://example.com/u","data":"d","information":"","socialmedia":"","copyright_registration_country":"","copyright_registrar":"","copyright_registration_number":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_burn","mrc402id":"{T}","amount":"3","memo":"m","nonce":"{N}"`,
		`{T}|3|m|{N}`, ``, `mrc402_mint`,
		`{"method":"PUT","path":"/mrc402/burn/{T}","form":{"amount":"3","memo":"m","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_mint","mrc402id":"{T}","amount":"3","nonce":"{N}"`,
		`{T}|3||{N}`, ``, `mrc402_burn`,
		`{"method":"PUT","path":"/mrc402/mint/{T}","form":{"amount":"3","memo":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_transfer","mrc402id":"{T}","fromAddr":"{A}","toAddr":"{B}","amount":"3","nonce":"{N}"`,
		`{A}|{B}|3|{T}|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc402/transfer/{T}","form":{"fromAddr":"{A}","toAddr":"{B}","amount":"3","tag":"","memo":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_melt","mrc402id":"{T}","address":"{A}","amount":"3","nonce":"{N}"`,
		`{T}|{A}|3|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc402/melt/{T}","form":{"address":"{A}","amount":"3","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_sell","mrc402id":"{T}","address":"{A}","amount":"3","price":"25","token":"0","platform_commission":"1","nonce":"{N}"`,
		`{A}|3|{T}|25|0||||1|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc402/sell/{T}","form":{"address":"{A}","amount":"3","price":"25","token":"0","platform_name":"","platform_url":"","platform_address":"","platform_commission":"1","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_unsell","mrc402dexid":"{E}","nonce":"{N}"`,
		`{E}|{N}`, ``, `mrc402_unauction`,
		`{"method":"POST","path":"/mrc402/unsell/{E}","form":{"tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_buy","mrc402dexid":"{E}","address":"{A}","amount":"3","nonce":"{N}"`,
		`{E}|{A}|3|{N}`, `{A}`, `mrc402_bid`,
		`{"method":"POST","path":"/mrc402/buy/{E}","form":{"address":"{A}","amount":"3","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_auction","mrc402id":"{T}","address":"{A}","amount":"3","auction_start_price":"10","token":"0","auction_buynow_price":"0","nonce":"{N}"`,
		`{A}|3|{T}|10|0||0|||||||{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc402/auction/{T}","form":{"address":"{A}","amount":"3","auction_start_price":"10","token":"0","auction_bidding_unit":"","auction_buynow_price":"0","auction_start_date":"","auction_end_date":"","platform_name":"","platform_url":"","platform_address":"","platform_commission":"","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_unauction","mrc402dexid":"{E}","nonce":"{N}"`,
		`{E}|{N}`, ``, `mrc402_unsell`,
		`{"method":"POST","path":"/mrc402/unauction/{E}","form":{"tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc402_bid","mrc402dexid":"{E}","address":"{A}","amount":"3","nonce":"{N}"`,
		`{E}|{A}|3|{N}`, `{A}`, `mrc402_buy`,
		`{"method":"POST","path":"/mrc402/bid/{E}","form":{"address":"{A}","amount":"3","tkey":"{N}","signature":"SIG"}}`,
	},
	{
		`"operation":"mrc401_createtrade_creator","ledger":"testnet","mrc400id":"{P}","creator":"{A}","itemdata":{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0","transferable":"Permanent","sell_fee":"0"},"buyer":"{B}","price":"50","token":"0","nonce":"{N}"`,
		`{P}|{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0","transferable":"Permanent","sell_fee":"0"}|{B}|50|0|{N}`, `{A}`, ``,
		`{"method":"POST","path":"/mrc401/createtrade/{P}","form":{"creator":"{A}","itemdata":"{\"item_id\":\"{X}\",\"groupid\":\"g\",\"initial_reserve\":\"0\",\"initial_token\":\"0\",\"melting_fee\":\"0\",\"transferable\":\"Permanent\",\"sell_fee\":\"0\"}","buyer":"{B}","price":"50","token":"0","creatorNonce":"{N}","creatorSignature":"SIG"},"missing":["buyerNonce","buyerSignature"]}`,
	},
	{
		`"operation":"mrc401_createtrade_buyer","ledger":"testnet","mrc400id":"{P}","creator":"{A}","itemdata":{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0","transferable":"Permanent","sell_fee":"0"},"buyer":"{B}","price":"50","token":"0","platform_address":"{C}","platform_commission":"10","creatorNonce":"{M}","creatorSignature":"{S}","nonce":"{N}"`,
		`{P}|{"item_id":"{X}","groupid":"g","initial_reserve":"0","initial_token":"0","melting_fee":"0","transferable":"Permanent","sell_fee":"0"}|{B}|50|0|{N}`, `{B}`, ``,
		`{"method":"POST","path":"/mrc401/createtrade/{P}","form":{"creator":"{A}","itemdata":"{\"item_id\":\"{X}\",\"groupid\":\"g\",\"initial_reserve\":\"0\",\"initial_token\":\"0\",\"melting_fee\":\"0\",\"transferable\":\"Permanent\",\"sell_fee\":\"0\"}","buyer":"{B}","price":"50","token":"0","platform_address":"{C}","platform_commission":"10","creatorNonce":"{M}","creatorSignature":"{S}","buyerNonce":"{N}","buyerSignature":"SIG"}}`,
	},
}

func parse(t *testing.T, request string) *metacoin.Tx {
	t.Helper()
	tx, err := metacoin.Parse([]byte("{" + expand(request) + "}"))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return tx
}

func TestAccepted(t *testing.T) {
	for _, c := range accepted {
		name, _, _ := strings.Cut(strings.SplitAfterN(c.request, `"operation":"`, 2)[1], `"`)
		t.Run(name, func(t *testing.T) {
			tx := parse(t, c.request)
			if got := tx.Operation(); got != name {
				t.Errorf("Operation: got %q, want %q", got, name)
			}
			if got, want := tx.Text(), expand(c.text); got != want {
				t.Errorf("Text:\n got %s\nwant %s", got, want)
			}
			if got, want := tx.Signer(), expand(c.signer); got != want {
				t.Errorf("Signer: got %q, want %q", got, want)
			}
			if got := strings.Join(tx.AlsoMeans(), " "); got != c.also {
				t.Errorf("AlsoMeans: got %q, want %q", got, c.also)
			}
			var got string
			if s := tx.Submit("SIG"); s != nil {
				got = string(s.AppendJSON(nil))
			}
			if want := expand(c.submit); got != want {
				t.Errorf("Submit:\n got %s\nwant %s", got, want)
			}
		})
	}
}

// TestEveryOperationAccepted holds the list above to the table: a new row needs
// a request there.
func TestEveryOperationAccepted(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range accepted {
		tx := parse(t, c.request)
		ledger := ""
		for _, l := range []string{"mainnet", "testnet"} {
			if strings.Contains(c.request, `"ledger":"`+l+`"`) {
				ledger = l
			}
		}
		seen[tx.Operation()+" "+ledger] = true
	}
	for _, op := range metacoin.Operations() {
		if op.Dispatched && !seen[op.Name+" "+op.Ledger] {
			t.Errorf("no accepted request for %s %s", op.Name, op.Ledger)
		}
	}
}

func TestNonce(t *testing.T) {
	for _, c := range accepted {
		tx := parse(t, c.request)
		want := ""
		if _, after, found := strings.Cut(c.request, `"nonce":"`); found {
			want, _, _ = strings.Cut(expand(after), `"`)
		}
		if got := tx.Nonce(); got != want {
			t.Errorf("%s: Nonce: got %q, want %q", tx.Operation(), got, want)
		}
	}
}

func TestNotCovered(t *testing.T) {
	want := map[string]string{
		"transfer":                   "unlockdate tags memo",
		"multitransfer":              "",
		"signcheck":                  "address",
		"mrc010_sell":                "min_trade_unit",
		"mrc010_buy":                 "unit price and payment token of the stored order",
		"mrc100_payment":             "tag gameid gamememo memo",
		"mrc100_reward":              "from gameid gamememo userlist[].memo",
		"mrc401_createtrade_creator": "creator platform_name platform_url platform_address platform_commission buyerNonce",
	}
	for _, c := range accepted {
		tx := parse(t, c.request)
		if w, ok := want[tx.Operation()]; ok && strings.Join(tx.NotCovered(), " ") != w {
			t.Errorf("%s: NotCovered: got %q, want %q", tx.Operation(), tx.NotCovered(), w)
		}
	}
}

// TestTrimmed is what the chaincode's strings.TrimSpace takes off, at both ends
// and nowhere else.
func TestTrimmed(t *testing.T) {
	tx := parse(t, `"operation":"token_register","owner":" {A}\n","name":"\t\u00a0\u0085\u2003My  token\u3000 \r\n","nonce":"\u2028{N}\u2029"`)
	if got, want := tx.Text(), expand(`{A}|My  token|{N}`); got != want {
		t.Errorf("Text: got %q, want %q", got, want)
	}
}

// TestEmptyIsAbsent: an optional field that is empty, or blank, is as if it
// had been left out.
func TestEmptyIsAbsent(t *testing.T) {
	without := parse(t, `"operation":"transfer","from":"{A}","to":"{B}","token":"0","amount":"1","nonce":"{N}"`)
	with := parse(t, `"operation":"transfer","from":"{A}","to":"{B}","token":"0","amount":"1","unlockdate":"","tags":"  ","memo":"","nonce":"{N}"`)
	if with.Text() != without.Text() || !slices.Equal(with.Submit("").Form, without.Submit("").Form) {
		t.Errorf("got %+v, want %+v", with.Submit(""), without.Submit(""))
	}
}

// TestKeepsNothing: the caller may reuse what it gave to Parse.
func TestKeepsNothing(t *testing.T) {
	raw := []byte("{" + expand(accepted[0].request) + "}")
	tx, err := metacoin.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if got, want := string(tx.Submit("SIG").AppendJSON(nil)), expand(accepted[0].submit); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

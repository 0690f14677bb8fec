# Lua reads and writes zones through variables, in every phase that has a request.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

needs_modules('ndk', 'lua');

my $node = node(modules => [qw(stream ndk lua zonemesh)], workers => 2, http => <<'CONF')->start;
    keyval_zone zone=one:1m timeout=1h;
    keyval $arg_key   $value zone=one;
    keyval $composite $found zone=one;
    keyval "log $arg_key" $logged zone=one;

    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        set $composite "";
        location /api   { api write=on; }
        location /plain { return 200 "[$value]"; }
        location /read  { content_by_lua_block { ngx.print("[", ngx.var.value, "]") } }
        location /write { content_by_lua_block { ngx.var.value = ngx.var.arg_v; ngx.print("[", ngx.var.value, "]") } }
        location /drop  { content_by_lua_block { ngx.var.value = nil; ngx.print("[", ngx.var.value, "]") } }
        location /bytes {
            content_by_lua_block {
                local all = {}
                for n = 0, 255 do all[#all + 1] = string.char(n) end
                ngx.var.value = table.concat(all)
                ngx.print(ngx.var.value)
            }
        }
        location /keys {
            content_by_lua_block {
                local seen = {}
                for _, key in ipairs { "k1", "k2" } do
                    ngx.var.composite = key
                    ngx.var.found = "value of " .. key
                end
                for _, key in ipairs { "k1", "k2", "k3" } do
                    ngx.var.composite = key
                    seen[#seen + 1] = "[" .. ngx.var.found .. "]"
                end
                ngx.print(table.concat(seen, " "))
            }
        }
        location /phases {
            rewrite_by_lua_block { ngx.var.value = "rewrite" }
            access_by_lua_block  { ngx.var.value = ngx.var.value .. " access" }
            header_filter_by_lua_block { ngx.var.value = ngx.var.value .. " header"; ngx.header["X-Value"] = ngx.var.value }
            log_by_lua_block     { ngx.var.logged = ngx.var.value .. " log" }
            content_by_lua_block { ngx.var.value = ngx.var.value .. " content"; ngx.print("done") }
        }
        location /deny {
            access_by_lua_block { if ngx.var.value == "blocked" then return ngx.exit(403) end }
            content_by_lua_block { ngx.print("welcome") }
        }
        location /later {
            content_by_lua_block {
                ngx.sleep(0.01)
                local reply = ngx.location.capture("/read?" .. ngx.var.args)
                ngx.var.value = reply.body .. "!"
                ngx.print(ngx.var.value)
            }
        }
    }
CONF

sub body { return $node->get(@_)->body }

$node->add('one', 'k', 'v');
is(body('/read?key=k'), '[v]', 'a script reads');
is(body('/write?key=s&v=by_script'), '[by_script]', 'a script writes, and reads what it wrote');
is($node->keyvals('one')->{s}, 'by_script', '... and the API has it');
is(body('/plain?key=s'), '[by_script]', '... and so have requests without a script');
is(body('/drop?key=s'), '[]', 'a pair that is not there has an empty value');
is(body('/read?key=none'), '[]', '... also one that never was');
is(body('/read'), '[]', '... and one without a key');
ok(!exists $node->keyvals('one')->{s}, 'no value takes the pair away');
is(body('/keys'), '[value of k1] [value of k2] []', 'a script sets a variable that is the key, then writes and reads the value');
ok(body('/bytes?key=b') eq join('', map { chr } 0 .. 255), 'a value of all bytes is written and read byte for byte');
is(body('/deny?key=client'), 'welcome', 'a decision by a value');
$node->add('one', 'client', 'blocked');
is($node->get('/deny?key=client')->status, 403, '... and by the other value');
is(body('/later?key=k'), '[v]!', 'a script that slept and waited for a subrequest writes');
is($node->get('/phases?key=p')->header('X-Value'), 'rewrite access content header', 'every phase writes and reads');
eventually_is { $node->keyvals('one')->{'log p'} } 'rewrite access content header log', '... the last one too, after the answer';

$node->reload;
is(body('/plain?key=k'), '[[v]!]', 'after a reload all is there');
is(body('/write?key=s&v=again'), '[again]', '... and can be written');

done_testing;

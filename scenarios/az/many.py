# Azure CLI commands by the dozen, in one process: the second costs a tenth of
# the first. Each line of the standard input is a command's words as JSON; each
# line of the output says how it ended: what az's own main does with it.
import contextlib, io, json, logging, os, sys
from azure.cli.core import get_default_cli

answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)  # where docker writes, which az acr login runs

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    for name in ('cli', 'az'):  # or a message goes to every command's errors
        logging.getLogger(name).handlers.clear()
    with contextlib.redirect_stderr(err):
        try:
            status = get_default_cli().invoke(json.loads(line), out_file=out)
        except SystemExit as end:
            status = end.code
    print(json.dumps({'status': status, 'out': out.getvalue(), 'err': err.getvalue()}), file=answers, flush=True)

#!/bin/sh
# Makes what the service needs before it starts: the bucket with its rule for uploads that broke
# off, and one API key of the tenant
# `default`, written to /keys/default once. Run again, it changes nothing.
set -eu
umask 077

python -c '
from customedit.config.settings import Settings
from customedit.storage.store import Storage
Storage(Settings.of_environment()).bucket()
'
if [ ! -s /keys/default ]; then
    customedit keys create default --name compose > /keys/new
    head -n 1 /keys/new > /keys/default
    rm /keys/new
fi

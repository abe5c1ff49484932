#!/usr/bin/env bash
# Passwords, made at random and kept nowhere but in the cluster. Run once, before `kubectl apply -k`.
set -euo pipefail
random() { openssl rand -hex 24; }
access=$(random) secret=$(random)
keys='{"identities":[{"name":"lethe","credentials":[{"accessKey":"%s","secretKey":"%s"}],"actions":["Admin","Read","Write","List","Tagging"]}]}'
# Through files, since a command line is seen by every process of the machine.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
umask 077
printf %s "$(random)" > postgres-password
printf %s lethe > mlflow-user
printf %s "$(random)" > mlflow-password
printf %s "$(random)" > flask-key
printf %s "$access" > s3-access-key
printf %s "$secret" > s3-secret-key
# shellcheck disable=SC2059
printf "$keys" "$access" "$secret" > s3.json
kubectl --namespace lethe create secret generic lethe-services --from-file=.

"""A thousand contracts as a company's catalog may have them, and a hundred questions of people who look for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit.contracts import write_tool

SERVICES = """
github|GitHub
  pull_request=proposed change to a branch that waits for review
  issue=bug report or task of a repository
  release=tagged version with notes and files to download
  workflow_run=run of a CI pipeline with its jobs and logs
  branch_protection=rule that says who may push to a branch
gitlab|GitLab
  merge_request=proposed change with approvals and discussions
  pipeline=CI pipeline with stages and jobs
  runner=machine that executes CI jobs
  milestone=goal with a due date that issues belong to
  snippet=piece of code that is shared by a link
jira|Jira
  ticket=issue with status, assignee and priority
  sprint=time box of a scrum board
  epic=large piece of work that groups tickets
  worklog=hours that somebody spent on a ticket
  board=kanban or scrum board of a team
slack|Slack
  message=text that is posted to a channel or person
  channel=public or private room of a workspace
  reminder=note that comes back at a given time
  user_group=handle that mentions several people
  emoji=custom picture of a workspace
gmail|Gmail
  email=mail with subject, body and attachments
  draft=mail that has not been sent yet
  label=name by which mail is filed
  mail_filter=rule that sorts incoming mail
  vacation_reply=automatic answer while somebody is away
gcal|Google Calendar
  event=meeting with a time, place and guests
  calendar=calendar of a person or room
  availability=free and busy times of people
  meeting_room=room that can be booked
  event_invitation=answer of a guest to a meeting
gdrive|Google Drive
  document=text file or page that is edited online
  folder=place that files are kept in
  share_link=link by which others may open a file
  file_comment=remark on a part of a file
  file_revision=older version of a file
notion|Notion
  page=page of a wiki with blocks
  database_row=entry of a table with properties
  block=paragraph, heading or list of a page
  wiki_template=blueprint for new pages
  page_comment=discussion next to a page
salesforce|Salesforce
  lead=person or company that may become a customer
  opportunity=possible sale with an amount and a stage
  account=company that is a customer
  contact=person at a company with phone and mail address
  sales_quote=offer with prices that is sent to a customer
hubspot|HubSpot
  deal=sale in a pipeline
  marketing_campaign=mailings, ads and pages with one goal
  form_submission=what a visitor entered into a form
  landing_page=web page that a campaign leads to
  subscriber_list=people who get a newsletter
zendesk|Zendesk
  support_ticket=request of a customer for help
  macro=prepared answer that agents use
  satisfaction_rating=score that a customer gave an answer
  help_article=text of the help center
  support_agent=person who answers customers
stripe|Stripe
  payment=charge of a card or bank account
  refund=money that goes back to a customer
  subscription=plan that is billed again and again
  invoice=bill with lines, taxes and a due date
  dispute=chargeback that a bank has opened
quickbooks|QuickBooks
  expense=money that the company has spent
  vendor=supplier that is paid
  journal_entry=debits and credits of the ledger
  tax_rate=percentage of sales tax
  bank_reconciliation=comparison of the books with a bank statement
shopify|Shopify
  order=purchase of a shop with items and address
  product=thing that is sold, with variants and pictures
  inventory_level=stock of a product in a warehouse
  discount_code=coupon that lowers a price
  abandoned_cart=basket that nobody has paid for
fedex|FedEx
  shipment=parcel on its way with a tracking number
  pickup=appointment at which a driver collects parcels
  shipping_rate=price of sending a parcel
  customs_form=declaration for parcels across borders
  delivery_exception=reason why a parcel is late
kubernetes|Kubernetes
  pod=running group of containers
  deployment=desired number of replicas of a program
  config_map=settings that pods read
  ingress=rule that routes web traffic to a service
  persistent_volume=disk that outlives a pod
docker|Docker
  container=running process with its own file system
  image=layers that a container starts from
  volume=storage that containers share
  network=bridge by which containers reach one another
  registry_tag=name of an image in a registry
aws_s3|Amazon S3
  bucket=top-level place for objects
  object=file with metadata in a bucket
  lifecycle_rule=rule that moves or expires old files
  presigned_url=temporary link to upload or download
  bucket_policy=statement of who may read or write
aws_ec2|Amazon EC2
  instance=virtual machine
  security_group=firewall of virtual machines
  snapshot=copy of a disk at one moment
  elastic_ip=fixed public address
  key_pair=SSH key for logging in
aws_lambda|AWS Lambda
  function=code that runs without a server
  event_trigger=source of events that starts code
  layer=libraries that functions share
  function_alias=name that points to a version
  concurrency_limit=how many executions may run at once
azure|Microsoft Azure
  resource_group=resources that live and die together
  virtual_network=private address space
  key_vault_secret=password or certificate that is kept safe
  cost_budget=spending limit with alerts
  app_service=hosted web application
gcp_bigquery|BigQuery
  dataset=collection of tables
  table=rows and columns with a schema
  query_job=SQL statement that runs or has run
  scheduled_query=SQL that runs every night
  table_export=copy of a table as files
postgres|PostgreSQL
  sql_row=record of a table
  index=structure that makes lookups fast
  role=user of the database with privileges
  replication_slot=position of a replica
  slow_query=statement that takes long
redis|Redis
  cache_key=value with a time to live
  stream=log of entries for consumers
  consumer_group=readers that share a stream
  lock=mutual exclusion between processes
  pubsub_subscription=listener for published messages
elasticsearch|Elasticsearch
  search_index=documents that can be searched
  mapping=types of the fields of documents
  ingest_pipeline=steps that change documents before they are stored
  shard=part of an index on a node
  index_alias=name for several indices
kafka|Kafka
  topic=ordered log of records
  partition=part of a log
  consumer_offset=how far a consumer has read
  acl=permission of a client
  connector=link to another system
datadog|Datadog
  monitor=condition that raises an alert
  dashboard=page of graphs
  metric=time series of measurements
  log_query=search in application logs
  downtime=period in which alerts are muted
grafana|Grafana
  alert_rule=threshold that notifies people
  annotation=mark on a graph at some time
  datasource=database that graphs are drawn from
  panel=one graph
  playlist=dashboards that are shown in turn
pagerduty|PagerDuty
  incident=outage that somebody is called for
  on_call_schedule=who is on duty at which time
  escalation_policy=who is called next when nobody answers
  postmortem=report on what went wrong
  status_update=news for those who wait
sentry|Sentry
  error_group=exceptions that have the same cause
  stack_trace=lines of code that led to an exception
  source_map=file that makes minified JavaScript readable
  release_health=share of sessions without a crash
  error_assignment=person who takes care of an exception
cloudflare|Cloudflare
  dns_record=name that points to an address
  firewall_rule=condition that blocks visitors
  cache_purge=removal of stale pages from the edge
  tls_certificate=proof of a site's identity
  worker_script=JavaScript at the edge
okta|Okta
  user_account=person who can sign in
  login_policy=rule of how people sign in
  mfa_factor=second proof at sign-in, such as a phone
  app_assignment=program that a person may open
  sign_in_log=who signed in, when and from where
figma|Figma
  design_file=drawing with frames and layers
  component=part that designs reuse
  design_comment=remark on a drawing
  color_style=named colour
  prototype=clickable demonstration
zoom|Zoom
  video_meeting=call with a link to join
  recording=film of a call
  webinar=broadcast with registered viewers
  transcript=spoken words as text
  meeting_poll=question to those in a call
twilio|Twilio
  sms=text message to a phone
  phone_number=number that can be called
  voice_call=telephone conversation
  whatsapp_template=approved text for WhatsApp
  verification_code=digits that prove a phone is somebody's
weather|the weather service
  forecast=temperature, rain and wind of the next days
  weather_alert=warning of storm, flood or heat
  air_quality=particles and ozone at a place
  tide=high and low water at a coast
  historical_climate=measurements of past years
maps|the maps service
  route=way from one place to another with duration
  place=shop, restaurant or sight with opening hours
  geocode=coordinates of a street address
  traffic_jam=congestion on a road
  elevation_profile=heights along a path
travel|the travel desk
  flight=connection by plane with a price
  hotel_booking=room for some nights
  rental_car=vehicle for some days
  visa_requirement=papers that a traveller needs
  travel_itinerary=all stops of a journey
hr|the HR system
  employee=person who works here
  leave_request=holiday or sick days that somebody asks for
  payslip=salary of a month with deductions
  job_posting=open position
  performance_review=yearly talk about goals and results
media|the media toolbox
  video_clip=part of a film
  audio_track=sound of a film or podcast
  thumbnail=small picture that stands for a film
  subtitle=text that is shown with speech
  watermark=mark that is laid over pictures
"""
"""A service and its product's name; below it a noun each, and what that is."""
VERBS = {
    "list": "Lists every {noun} of {product} that matches a filter, newest first: each a {gloss}.",
    "get": "Shows one {noun} of {product} by its id, with all details. A {noun} is a {gloss}.",
    "create": "Creates a new {noun} in {product}, that is a {gloss}. Returns its id.",
    "update": "Changes fields of an existing {noun} in {product} ({gloss}); what is not given stays.",
    "delete": "Deletes a {noun} from {product} for good. Removing a {gloss} cannot be undone.",
}
_BY_ID = {"id": {"type": "string", "description": "Identifier of the {noun}.", "bind": "env"}}
_FIELDS = {
    "fields": {"type": "object", "description": "Names and values of the {noun} that are set.", "bind": "stdin"},
    "dry_run": {"type": "boolean", "description": "Only say what would be done.", "default": False, "bind": "env"},
}
_FILTER = {
    "filter": {"type": "string", "description": "Words that the {noun} holds.", "default": "", "bind": "env"},
    "since": {
        "type": "string",
        "description": "First day, as 2026-01-31.",
        "format": "date",
        "bind": "env",
        "default": "2026-01-01",
    },
    "limit": {
        "type": "integer",
        "description": "How many at most.",
        "minimum": 1,
        "maximum": 500,
        "default": 50,
        "bind": "env",
    },
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "list": _FILTER, "get": _BY_ID, "create": _FIELDS, "update": {**_BY_ID, **_FIELDS}, "delete": _BY_ID,
}  # fmt: skip


def contracts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and fields of each."""
    slug = product = ""
    for line in SERVICES.strip().splitlines():
        if not line.startswith(" "):
            slug, product = line.split("|")
            continue
        noun, gloss = line.strip().split("=")
        spoken = noun.replace("_", " ")
        for verb, template in VERBS.items():
            parameters = {
                name: {**about, "description": about["description"].format(noun=spoken)}
                for name, about in PARAMETERS[verb].items()
            }
            text = template.format(noun=spoken, product=product, gloss=gloss)
            yield f"{slug}_{verb}_{noun}", {"description": text, "tags": [slug], "parameters": parameters}


def write_all(directory: Path) -> int:
    """Write them; how many they are."""
    number = 0
    for name, fields in contracts():
        write_tool(directory / name.partition("_")[0], name, ["true"], **fields)
        number += 1
    return number


QUESTIONS = """
which pull requests are waiting on GitHub?|github_list_pull_request
open a bug report in our GitHub repository|github_create_issue
publish a new version with release notes on GitHub|github_create_release
why did the CI workflow run fail? show it|github_get_workflow_run
who is allowed to push to the main branch? protect it|github_create_branch_protection
list merge requests in gitlab|gitlab_list_merge_request
which CI runners do we have|gitlab_list_runner
change the due date of a milestone|gitlab_update_milestone
share a piece of code as a snippet|gitlab_create_snippet
move a Jira ticket to another status|jira_update_ticket
start a new sprint|jira_create_sprint
log the hours I spent on a ticket|jira_create_worklog
group tickets under an epic|jira_create_epic
post a message to the team channel in Slack|slack_create_message
remind me tomorrow on slack|slack_create_reminder
add a custom emoji|slack_create_emoji
search my email for the attachments|gmail_list_email
set up an automatic vacation reply while I am away|gmail_create_vacation_reply
make a rule that sorts incoming mail|gmail_create_mail_filter
schedule a meeting with guests in the calendar|gcal_create_event
when are my colleagues free or busy|gcal_list_availability|gcal_get_availability
book a meeting room|gcal_create_meeting_room
which documents are in Drive|gdrive_list_document
restore an older version of a file: show revisions|gdrive_list_file_revision
share a file with a link|gdrive_create_share_link
write a wiki page in Notion|notion_create_page
add an entry to a notion database|notion_create_database_row
new lead in Salesforce|salesforce_create_lead
change the stage of an opportunity|salesforce_update_opportunity
phone number of a contact at a customer company|salesforce_get_contact|salesforce_list_contact
send a quote with prices to a customer|salesforce_create_sales_quote
which deals are in the HubSpot pipeline|hubspot_list_deal
who subscribed to the newsletter|hubspot_list_subscriber_list
what did visitors enter into the form|hubspot_list_form_submission
customers' requests for help that are open in zendesk|zendesk_list_support_ticket
write a help center article|zendesk_create_help_article
how satisfied are customers: ratings|zendesk_list_satisfaction_rating
give a customer their money back|stripe_create_refund
cancel a subscription for good|stripe_delete_subscription
send a bill to a customer with a due date|stripe_create_invoice
chargebacks that banks opened|stripe_list_dispute
record an expense of the company|quickbooks_create_expense
add a supplier to the books|quickbooks_create_vendor
reconcile the books with the bank statement|quickbooks_create_bank_reconciliation
what is in stock in the warehouse|shopify_list_inventory_level|shopify_get_inventory_level
make a coupon code that lowers the price|shopify_create_discount_code
baskets that nobody has paid for|shopify_list_abandoned_cart
where is my parcel? tracking number|fedex_get_shipment|fedex_list_shipment
have a driver collect parcels|fedex_create_pickup
how much does it cost to send a parcel|fedex_list_shipping_rate|fedex_get_shipping_rate
list running pods in the cluster|kubernetes_list_pod
scale a deployment to more replicas|kubernetes_update_deployment
route web traffic to a service|kubernetes_create_ingress
which docker containers are running|docker_list_container
remove an old docker image|docker_delete_image
create a bucket in S3|aws_s3_create_bucket
temporary link to upload a file to S3|aws_s3_create_presigned_url
expire old files automatically in a bucket|aws_s3_create_lifecycle_rule
launch a new virtual machine on EC2|aws_ec2_create_instance
take a snapshot of a disk|aws_ec2_create_snapshot
open a port in the firewall of a virtual machine|aws_ec2_update_security_group|aws_ec2_create_security_group
deploy a lambda function|aws_lambda_create_function|aws_lambda_update_function
limit how many lambda executions run at once|aws_lambda_create_concurrency_limit|aws_lambda_update_concurrency_limit
read a password from the key vault|azure_get_key_vault_secret
set a spending budget with alerts on Azure|azure_create_cost_budget
run a SQL query on BigQuery|gcp_bigquery_create_query_job
SQL that should run every night|gcp_bigquery_create_scheduled_query
which statements in Postgres are slow|postgres_list_slow_query
make lookups faster with an index in PostgreSQL|postgres_create_index
create a database user with privileges|postgres_create_role
invalidate a redis cache key|redis_delete_cache_key
mapping of document fields in Elasticsearch|elasticsearch_get_mapping|elasticsearch_list_mapping
new Kafka topic|kafka_create_topic
how far has the consumer read in kafka|kafka_get_consumer_offset|kafka_list_consumer_offset
mute Datadog alerts during maintenance downtime|datadog_create_downtime
search the application logs|datadog_list_log_query|datadog_create_log_query
notify people when a threshold is crossed in Grafana|grafana_create_alert_rule
mark a deployment on a graph with an annotation|grafana_create_annotation
who is on call tonight|pagerduty_list_on_call_schedule|pagerduty_get_on_call_schedule
write the report on what went wrong in the outage|pagerduty_create_postmortem
exceptions with the same cause in sentry|sentry_list_error_group
upload a source map for minified JavaScript|sentry_create_source_map
point a domain name to an address|cloudflare_create_dns_record|cloudflare_update_dns_record
clear stale pages from the edge cache|cloudflare_create_cache_purge|cloudflare_delete_cache_purge
block visitors with a firewall rule|cloudflare_create_firewall_rule
who signed in from where|okta_list_sign_in_log
require a second factor at sign-in|okta_create_mfa_factor
comment on a drawing in Figma|figma_create_design_comment
recordings of zoom calls|zoom_list_recording
what was said in the call, as text transcript|zoom_get_transcript|zoom_list_transcript
send a text message to a phone|twilio_create_sms
will it rain tomorrow? forecast|weather_get_forecast|weather_list_forecast
is there a storm or flood warning|weather_list_weather_alert|weather_get_weather_alert
coordinates of a street address|maps_get_geocode|maps_list_geocode|maps_create_geocode
fastest way from one place to another|maps_get_route|maps_list_route|maps_create_route
book a flight by plane|travel_create_flight
reserve a hotel room for two nights|travel_create_hotel_booking
ask for holiday: leave request|hr_create_leave_request
salary of last month, payslip|hr_get_payslip|hr_list_payslip
add subtitles to a film|media_create_subtitle
"""
"""A question, and the names of which one is the answer."""


def questions() -> list[tuple[str, frozenset[str]]]:
    """Each with its answers."""
    lines = (line.split("|") for line in QUESTIONS.strip().splitlines())
    return [(question, frozenset(answers)) for question, *answers in lines]

-- What a partition waits for, in words for people; null if it does not wait.
alter table {standings} add column waiting_for text;

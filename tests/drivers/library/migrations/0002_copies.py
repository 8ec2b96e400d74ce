from django.db import migrations, models


def one_of_each(apps, _schema):
    apps.get_model("library", "Book").objects.filter(copies=0).update(copies=1)


class Migration(migrations.Migration):
    dependencies = [("library", "0001_initial")]
    operations = [
        migrations.AddField("book", "copies", models.IntegerField(default=1)),
        migrations.RunPython(one_of_each, migrations.RunPython.noop),
        migrations.AddConstraint(
            "book",
            models.CheckConstraint(condition=models.Q(copies__gte=0), name="copies_are_there"),
        ),
    ]
